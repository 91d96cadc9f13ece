// What is seen of a call tree: which part, which box the mouse and the keys are on, and how both are moved.
import { Boxes } from "./boxes";
import { ROW, type Window, levelAt, paint, paintTimes, rowTop } from "./painter";
import { isDark } from "./theme";
import { count, file, percent, points, samples } from "./words";

// A box of fewer pixels is not found by the eye.
const SEEN = 4;

// What the mouse and the keys change between two drawings of Preact.
export class Picture {
  hover = -1; cursor = -1; from = 0; to = 1; waiting = false;
  // What is seen, as parts of the whole width, for the address; empty for the box that is zoomed to.
  part = "";
  onPart: (part: string) => void = () => {};
  constructor(readonly boxes: Boxes, readonly view: HTMLElement, readonly canvas: HTMLCanvasElement, readonly spacer: HTMLElement, public flip: boolean, public focus: number) {
    this.show(focus);
  }
  show(focus: number): void {
    this.part = "";
    this.focus = focus < this.boxes.count && focus >= 0 ? focus : 0;
    if (!this.boxes.count) return;
    this.from = this.boxes.left[this.focus]!;
    this.to = this.from + this.boxes.total[this.focus]!;
    this.draw();
  }
  showPart(part: string): void {
    if (part === this.part || !this.boxes.count) return;
    this.show(this.focus);
    const [from, to] = part.split(",").map(Number), whole = this.boxes.whole;
    if (!(from! < to! && from! >= 0 && to! <= 1)) return;
    Object.assign(this, { part, from: from! * whole, to: to! * whole });
  }
  // Shows the part of its box that an earlier picture showed, with the same box under the keys.
  keep(before: Picture): void {
    this.cursor = before.cursor > 0 ? this.boxes.same(before.boxes, before.cursor) : before.cursor;
    const was = before.boxes.total[before.focus]!, is = this.boxes.total[this.focus]!, left = before.boxes.left[before.focus]!;
    if (!was || !is) return;
    const from = (before.from - left) / was, to = (before.to - left) / was;
    if (from === 0 && to === 1) return;
    this.from = Math.max(0, this.boxes.left[this.focus]! + from * is);
    this.to = Math.min(this.boxes.whole, this.boxes.left[this.focus]! + to * is);
    this.moved();
  }
  seen(): Window {
    return { from: this.from, to: this.to, width: this.view.clientWidth, height: this.view.clientHeight, scroll: this.view.scrollTop, flip: this.flip, dark: isDark(), hover: this.hover, cursor: this.cursor, focus: this.focus };
  }
  size(): void {
    const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.view;
    this.spacer.style.height = `${Math.max(0, this.boxes.rows * ROW - height)}px`;
    const across = Math.round(width * ratio), down = Math.round(height * ratio);
    // Setting a canvas's size empties it, also where it has that size; that is how the observer of sizes begins.
    if (this.canvas.width === across && this.canvas.height === down) return;
    this.canvas.width = across;
    this.canvas.height = down;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.canvas.getContext("2d")!.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }
  draw(): void {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.now(); });
  }
  now(): void {
    const context = this.canvas.getContext("2d")!, drawn = paint(context, this.boxes, this.seen()), begin = this.boxes.data.start_s;
    if (begin !== undefined && this.to > this.from) this.canvas.dataset["times"] = paintTimes(context, this.seen(), begin).join(", ");
    // When the picture first stood on the screen, in milliseconds from the visit: bench/page.py reads it.
    this.canvas.dataset["painted"] ??= performance.now().toFixed(1);
    Object.assign(this.canvas.dataset, { boxes: String(this.boxes.count), drawn: String(drawn), focus: String(this.focus), width: String(this.to - this.from) });
  }
  // Zoom by a factor around a place (0 left edge, 1 right edge), or move by a part of what is seen.
  zoomBy(factor: number, around: number): void {
    const whole = this.boxes.whole, length = Math.min(whole, Math.max((this.to - this.from) * factor, whole * 1e-7));
    this.set(this.from + (this.to - this.from - length) * around, length);
  }
  moveBy(part: number): void { this.set(this.from + (this.to - this.from) * part, this.to - this.from); }
  private set(from: number, length: number): void {
    this.from = Math.max(0, Math.min(from, this.boxes.whole - length));
    this.to = this.from + length;
    this.moved();
  }
  private moved(): void {
    const left = this.boxes.left[this.focus]!, short = (value: number) => String(Number((value / this.boxes.whole).toPrecision(10)));
    this.part = this.from === left && this.to === left + this.boxes.total[this.focus]! ? "" : `${short(this.from)},${short(this.to)}`;
    this.onPart(this.part);
    this.draw();
  }
  // From one place of the mouse to another: across in pixels, and down where there is more than fits.
  dragBy(across: number, down: number): void {
    this.moveBy(-across / (this.view.clientWidth || 1));
    this.view.scrollTop -= down;
  }
  boxAt(event: { clientX: number; clientY: number }): number {
    const area = this.canvas.getBoundingClientRect();
    return this.boxes.at(levelAt(event.clientY - area.top, this.boxes.rows, this.seen()), this.from + ((event.clientX - area.left) / area.width) * (this.to - this.from));
  }
  // The next box in a direction of the keyboard; -1 when there is none.
  step(key: string): number {
    const { boxes } = this, box = Math.max(this.cursor, 0);
    const up = this.flip ? "ArrowDown" : "ArrowUp", down = this.flip ? "ArrowUp" : "ArrowDown";
    if (key === up) return boxes.parent[box]!;
    if (key === down && boxes.depth[box]! + 1 < boxes.rows) {
      const child = boxes.firstAt(boxes.depth[box]! + 1, boxes.left[box]!);
      return child < boxes.levels[boxes.depth[box]! + 2]! && boxes.parent[child] === box ? child : -1;
    }
    if (key === "ArrowLeft" && box > boxes.levels[boxes.depth[box]!]!) return box - 1;
    if (key === "ArrowRight" && box + 1 < boxes.levels[boxes.depth[box]! + 1]!) return box + 1;
    return -1;
  }
  reveal(box: number): void {
    this.cursor = box;
    const { boxes } = this;
    if (boxes.left[box]! < this.from || boxes.left[box]! + boxes.total[box]! > this.to) { this.show(boxes.common(box, this.focus)); this.onPart(this.part); }
    const top = rowTop(boxes.depth[box]!, boxes.rows, this.seen());
    if (top < 0) this.view.scrollTop += top;
    if (top + ROW > this.view.clientHeight) this.view.scrollTop += top + ROW - this.view.clientHeight;
    this.draw();
  }
  // The next box that matches the search, level by level; a narrow one is made wide enough to be seen.
  match(step: number): number {
    const { boxes } = this, count = boxes.count;
    if (!boxes.hits || !count) return -1;
    for (let tried = 1, box = Math.max(this.cursor, 0); tried <= count; tried++) {
      box = (box + step + count) % count;
      if (!boxes.hits[boxes.fn[box]!]) continue;
      this.reveal(box);
      const wide = (boxes.total[box]! / (this.to - this.from)) * this.view.clientWidth;
      if (wide < SEEN) { const length = (boxes.total[box]! * this.view.clientWidth) / (4 * SEEN); this.set(boxes.left[box]! + (boxes.total[box]! - length) / 2, Math.min(length, boxes.whole)); }
      return box;
    }
    return -1;
  }
}

// A name of a thousand letters leaves room for the numbers below it; its end tells it from others.
const brief = (name: string) => (name.length > 500 ? `${name.slice(0, 350)} \u2026 ${name.slice(-120)}` : name);

export function describe(boxes: Boxes, box: number, unit: string, all?: number, short = false): string {
  const kind = boxes.kind(box), module = boxes.module(box), place = boxes.place(box), whole = all || boxes.whole;
  const lines = [(short ? brief(boxes.name(box)) : boxes.name(box)) + (kind === "group" || kind === "mark" || !module ? "" : ` (${file(module)})`)];
  const { before, after } = boxes.data;
  if (before && after) lines.push(`before ${percent(before[box]!, 1)}, after ${percent(after[box]!, 1)}: ${points(after[box]! - before[box]!)} points`);
  else lines.push(`${unit === "samples" ? samples(boxes.total[box]!) : `${count(boxes.total[box]!)} ${unit}`}, ${percent(boxes.total[box]!, whole)}; self ${count(boxes.own[box]!)}, ${percent(boxes.own[box]!, whole)}`);
  if (place) lines.push(place);
  if (boxes.suspect[box] && kind !== "mark") lines.push("part of stacks that are not whole");
  return lines.join("\n");
}
