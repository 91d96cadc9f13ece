// Draws boxes on a canvas as large as what is seen. What it costs is bounded by the pixels, not by the number of boxes.
import type { Boxes } from "./boxes";
import { marks } from "./axis";
import { HATCH, KINDS, MATCH, changeColour } from "./palette";

export const ROW = 19;
const TEXT = 3, NARROW = 0.6, MICRO = 1e6;

export interface Window { from: number; to: number; width: number; height: number; scroll: number; flip: boolean; dark: boolean; hover: number; cursor: number; focus: number }

export const rowTop = (level: number, rows: number, seen: Window) =>
  (seen.flip ? Math.max(rows * ROW, seen.height) - (level + 1) * ROW : level * ROW) - seen.scroll;

export const levelAt = (y: number, rows: number, seen: Window) =>
  Math.floor((seen.flip ? Math.max(rows * ROW, seen.height) - (y + seen.scroll) : y + seen.scroll) / ROW);

export function paint(context: CanvasRenderingContext2D, boxes: Boxes, seen: Window): number {
  context.clearRect(0, 0, seen.width, seen.height);
  context.font = "11.5px ui-monospace, Menlo, Consolas, monospace";
  context.textBaseline = "middle";
  const letter = context.measureText("m").width;
  const scale = seen.width / (seen.to - seen.from || 1);
  let drawn = 0;
  for (let level = 0; level < boxes.rows; level++) {
    const top = rowTop(level, boxes.rows, seen);
    if (top + ROW >= 0 && top <= seen.height) drawn += paintLevel(context, boxes, seen, { level, top, scale, letter });
  }
  return drawn;
}

// The times of a flame chart, from its begin on: lines through the picture, and numbers in its first row. Gives the numbers.
export function paintTimes(context: CanvasRenderingContext2D, seen: Window, begin: number): string[] {
  const all = marks(begin + seen.from / MICRO, begin + seen.to / MICRO, seen.width, (text) => context.measureText(text).width);
  context.fillStyle = seen.dark ? "rgba(255,255,255,.25)" : "rgba(0,0,0,.22)";
  for (const { x } of all) context.fillRect(x, 0, 1, seen.height);
  const said = all.filter(({ left }) => left !== null);
  for (const { text, left } of said) {
    context.fillStyle = seen.dark ? "#30343b" : "#eaeaea";
    context.fillRect(left! - TEXT, 0, context.measureText(text).width + 2 * TEXT, ROW - 1);
    context.fillStyle = seen.dark ? "#f4f4f4" : "#111";
    context.fillText(text, left!, ROW / 2);
  }
  return said.map(({ text }) => text);
}

interface Level { level: number; top: number; scale: number; letter: number }

function paintLevel(context: CanvasRenderingContext2D, boxes: Boxes, seen: Window, at: Level): number {
  const end = boxes.levels[at.level + 1]!;
  let box = boxes.firstAt(at.level, seen.from), drawn = 0, run: Run | null = null;
  while (box < end && boxes.left[box]! < seen.to) {
    drawn++;
    const x = Math.max(0, (boxes.left[box]! - seen.from) * at.scale);
    const right = Math.min(seen.width, (boxes.left[box]! + boxes.total[box]! - seen.from) * at.scale);
    if (right - x < NARROW) {
      // Boxes too narrow to be told apart become one pixel; the next box to look at lies beyond it.
      const next = Math.min(end, Math.max(box + 1, boxes.firstAt(at.level, seen.from + (x + 1) / at.scale)));
      // On whole pixels: half of two would be too pale to be seen.
      const colour = narrowColour(boxes, seen, box, next), left = Math.floor(x), cut = boxes.anySuspect(box, next);
      if (run && run.colour === colour && run.cut === cut && run.right === left) run.right++;
      else { paintRun(context, run, at.top); run = { left, right: left + 1, colour, cut }; }
      box = next;
      continue;
    }
    paintRun(context, run, at.top);
    run = null;
    paintBox(context, boxes, seen, { box, x, width: right - x, top: at.top, letter: at.letter });
    box++;
  }
  paintRun(context, run, at.top);
  return drawn;
}

// Narrow boxes side by side that look alike: one rectangle.
interface Run { left: number; right: number; colour: string; cut: boolean }

// Grey, as several kinds may be in it, or in the order of time the colour of what ran; what is looked for shows all the same.
function narrowColour(boxes: Boxes, seen: Window, from: number, to: number): string {
  if (boxes.anyHit(from, to)) return seen.dark ? MATCH.dark : MATCH.light;
  return boxes.data.left ? colour(boxes, seen, from) : seen.dark ? "#555" : "#bbb";
}

function paintRun(context: CanvasRenderingContext2D, run: Run | null, top: number): void {
  if (!run) return;
  context.fillStyle = run.colour;
  context.fillRect(run.left, top, run.right - run.left, ROW - 1);
  if (!run.cut) return;
  context.fillStyle = HATCH;
  context.fillRect(run.left, top + ROW - 4, run.right - run.left, 3);
}

interface Spot { box: number; x: number; width: number; top: number; letter: number }

function paintBox(context: CanvasRenderingContext2D, boxes: Boxes, seen: Window, spot: Spot): void {
  const { box, x, width, top } = spot;
  const above = boxes.depth[box]! < boxes.depth[seen.focus]!;
  context.globalAlpha = above ? 0.55 : 1;
  context.fillStyle = colour(boxes, seen, box);
  context.fillRect(x, top, Math.max(width - 0.5, 0.5), ROW - 1);
  const mark = boxes.kind(box) === "mark";
  if (mark || boxes.suspect[box]) hatch(context, x, top, width, mark);
  if (box === seen.hover || box === seen.cursor) {
    context.strokeStyle = seen.dark ? "#fff" : "#000";
    context.lineWidth = box === seen.cursor ? 2 : 1;
    context.strokeRect(x + 1, top + 1, Math.max(width - 2.5, 0.5), ROW - 3);
  }
  const room = Math.floor((width - 2 * TEXT) / spot.letter);
  // The first row of a chart is for the times; the thread's name stands above the picture.
  if (room >= 3 && (box || boxes.data.start_s === undefined)) {
    const name = label(boxes, box);
    context.fillStyle = seen.dark ? "#f4f4f4" : "#111";
    context.fillText(name.length <= room ? name : `${name.slice(0, room - 1)}\u2026`, x + TEXT, top + ROW / 2);
  }
  context.globalAlpha = 1;
}

function colour(boxes: Boxes, seen: Window, box: number): string {
  if (boxes.hits && boxes.hits[boxes.fn[box]!]) return seen.dark ? MATCH.dark : MATCH.light;
  const { before, after } = boxes.data;
  if (before && after) return changeColour(after[box]! - before[box]!, seen.dark);
  const kind = KINDS[boxes.kind(box)] ?? KINDS["unknown"]!;
  return seen.dark ? kind.dark : kind.light;
}

// Never colour alone: a change has its sign before the name.
function label(boxes: Boxes, box: number): string {
  const { before, after } = boxes.data;
  if (!before || !after || Math.abs(after[box]! - before[box]!) < 0.0005) return boxes.name(box);
  return `${after[box]! > before[box]! ? "+" : "\u2212"} ${boxes.name(box)}`;
}

// A mark is hatched all over, the boxes that stand on it along their lower edge.
function hatch(context: CanvasRenderingContext2D, x: number, top: number, width: number, full: boolean): void {
  if (width < 2) return;
  context.save();
  context.beginPath();
  context.rect(x, full ? top : top + ROW - 4, width - 0.5, full ? ROW - 1 : 3);
  context.clip();
  context.strokeStyle = HATCH;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = x - ROW; at < x + width; at += 6) { context.moveTo(at, top + ROW); context.lineTo(at + ROW, top); }
  context.stroke();
  context.restore();
}
