// Where times stand along a line: at round numbers, no closer than can be read.
const APART = 110;

export interface Ticks { first: number; step: number; digits: number }

// Of the seconds between two others, drawn on so many pixels.
export function ticks(from: number, to: number, width: number, apart = APART): Ticks {
  const rough = (to - from) / Math.max(2, width / apart), unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) ?? 10);
  return { first: Math.ceil(from / step - 1e-9) * step, step, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

export interface Mark { x: number; text: string; left: number | null }
// Room between a line and its number.
const GAP = 3, MOST = 200;

// The lines of a time axis and where their numbers begin: right of the line, left of it at the edge, nowhere (null) without room.
export function marks(from: number, to: number, width: number, wide: (text: string) => number): Mark[] {
  // At the right edge two numbers stand between two lines; of long ones there are fewer.
  const longest = wide(`${to.toFixed(ticks(from, to, width).digits)} s`);
  const { first, step, digits } = ticks(from, to, width, Math.max(APART, 2 * (longest + GAP) + GAP + 2)), found: Mark[] = [];
  let free = 0;
  for (let at = first; at <= to && found.length < MOST; at = first + found.length * step) {
    const x = Math.round(((at - from) / (to - from)) * width), text = `${at.toFixed(digits)} s`, room = wide(text) + GAP;
    const left = x + 1 + GAP + room <= width ? x + 1 + GAP : x - room >= free ? x - room : null;
    if (left !== null) free = left + room;
    found.push({ x, text, left });
  }
  return found;
}
