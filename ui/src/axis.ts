// Where times stand along a line: at round numbers, no closer than can be read.
const APART = 110;

export interface Ticks { first: number; step: number; digits: number }

// Of the seconds between two others, drawn on so many pixels.
export function ticks(from: number, to: number, width: number): Ticks {
  const rough = (to - from) / Math.max(2, width / APART), unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) ?? 10);
  return { first: Math.ceil(from / step - 1e-9) * step, step, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
