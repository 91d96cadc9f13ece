// The flame graph: a canvas that shows a part of the tree, moved by mouse, wheel and keys.
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { TreeData } from "./api";
import { Boxes } from "./boxes";
import { ROW, type Window, levelAt, paint, rowTop } from "./painter";
import { isDark, onTheme } from "./theme";
import { count, file, matcher, percent, points } from "./words";

export interface FlameProperties {
  data: TreeData; search: string; flip: boolean; focus: number; label: string; unit: string; whole?: number;
  onFocus: (box: number, moved?: boolean) => void; onMatches?: (text: string) => void; onPick?: (name: string, module: string) => void;
}

// What the mouse and the keys change between two drawings of Preact.
class Picture {
  hover = -1; cursor = -1; from = 0; to = 1; waiting = false;
  constructor(readonly boxes: Boxes, readonly view: HTMLElement, readonly canvas: HTMLCanvasElement, readonly spacer: HTMLElement, public flip: boolean, public focus: number) {
    this.show(focus);
  }
  show(focus: number): void {
    this.focus = focus < this.boxes.count && focus >= 0 ? focus : 0;
    if (!this.boxes.count) return;
    this.from = this.boxes.left[this.focus]!;
    this.to = this.from + this.boxes.total[this.focus]!;
    this.draw();
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
  }
  seen(): Window {
    return { from: this.from, to: this.to, width: this.view.clientWidth, height: this.view.clientHeight, scroll: this.view.scrollTop, flip: this.flip, dark: isDark(), hover: this.hover, cursor: this.cursor, focus: this.focus };
  }
  size(): void {
    const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.view;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.spacer.style.height = `${Math.max(0, this.boxes.rows * ROW - height)}px`;
    this.canvas.getContext("2d")!.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }
  draw(): void {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.now(); });
  }
  now(): void {
    const drawn = paint(this.canvas.getContext("2d")!, this.boxes, this.seen());
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
    this.draw();
  }
  boxAt(event: MouseEvent): number {
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
    if (boxes.left[box]! < this.from || boxes.left[box]! + boxes.total[box]! > this.to) this.show(boxes.common(box, this.focus));
    const top = rowTop(boxes.depth[box]!, boxes.rows, this.seen());
    if (top < 0) this.view.scrollTop += top;
    if (top + ROW > this.view.clientHeight) this.view.scrollTop += top + ROW - this.view.clientHeight;
    this.draw();
  }
}

export function describe(boxes: Boxes, box: number, unit: string, all?: number): string {
  const kind = boxes.kind(box), module = boxes.module(box), place = boxes.place(box), whole = all || boxes.whole;
  const lines = [boxes.name(box) + (kind === "group" || kind === "mark" || !module ? "" : ` (${file(module)})`)];
  const { before, after } = boxes.data;
  if (before && after) lines.push(`before ${percent(before[box]!, 1)}, after ${percent(after[box]!, 1)}: ${points(after[box]! - before[box]!)} points`);
  else lines.push(`${count(boxes.total[box]!)} ${unit}, ${percent(boxes.total[box]!, whole)}; self ${count(boxes.own[box]!)}, ${percent(boxes.own[box]!, whole)}`);
  if (place) lines.push(place);
  if (boxes.suspect[box] && kind !== "mark") lines.push("part of stacks that are not whole");
  return lines.join("\n");
}

export function Flame(properties: FlameProperties) {
  const { data, search, flip } = properties;
  const boxes = useMemo(() => new Boxes(data), [data]);
  const focus = useCarried(boxes, properties.focus);
  const latest = useRef(properties);
  latest.current = properties;
  const view = useRef<HTMLDivElement>(null), canvas = useRef<HTMLCanvasElement>(null), spacer = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null), detail = useRef<HTMLOutputElement>(null), picture = useRef<Picture | null>(null);

  useEffect(() => {
    const before = picture.current;
    const made = (picture.current = new Picture(boxes, view.current!, canvas.current!, spacer.current!, latest.current.flip, focus));
    if (before) made.keep(before);
    // Flames upwards stand on the lower edge.
    const below = made.view.scrollHeight - made.view.scrollTop;
    made.size();
    if (latest.current.flip) made.view.scrollTop = made.view.scrollHeight - below;
    const resized = new ResizeObserver(() => made.size());
    resized.observe(view.current!);
    const forget = onTheme(() => made.draw());
    return () => { resized.disconnect(); forget(); };
  }, [boxes]);

  useEffect(() => {
    const test = matcher(search);
    boxes.search(test ?? null);
    picture.current?.draw();
    latest.current.onMatches?.(test ? `${percent(boxes.matched, latest.current.whole || boxes.whole)} matches` : test === undefined ? "not a regular expression" : "");
  }, [boxes, search]);

  useEffect(() => {
    const made = picture.current!;
    made.flip = flip;
    made.view.scrollTop = flip ? made.view.scrollHeight : 0;
    made.draw();
  }, [flip]);

  useEffect(() => {
    // Another picture of the same box keeps what is seen of it.
    if (picture.current!.focus !== focus) picture.current!.show(focus);
    if (focus !== properties.focus) properties.onFocus(focus, true);
    say(focus > 0 && focus < boxes.count ? focus : -1);
  }, [boxes, focus]);

  const say = (box: number) => { if (detail.current) detail.current.textContent = box < 0 ? "" : describe(boxes, box, latest.current.unit, latest.current.whole); };

  function hover(event: MouseEvent): void {
    const made = picture.current!, box = made.boxAt(event), sign = tip.current!;
    if (box !== made.hover) { made.hover = box; made.draw(); }
    sign.hidden = box < 0;
    if (box < 0) return;
    sign.textContent = describe(boxes, box, latest.current.unit, latest.current.whole);
    sign.style.left = `${Math.min(event.clientX + 14, window.innerWidth - sign.offsetWidth - 8)}px`;
    sign.style.top = `${event.clientY + 18 + sign.offsetHeight > window.innerHeight ? event.clientY - sign.offsetHeight - 8 : event.clientY + 18}px`;
  }
  function leave(): void { picture.current!.hover = -1; tip.current!.hidden = true; picture.current!.draw(); }
  function click(event: MouseEvent): void {
    const box = picture.current!.boxAt(event);
    if (box < 0) return;
    picture.current!.cursor = box;
    if (box === focus) picture.current!.show(box); else properties.onFocus(box);
    say(box);
  }
  function pick(event: MouseEvent): void {
    const box = picture.current!.boxAt(event);
    if (box > 0 && boxes.kind(box) !== "group" && boxes.kind(box) !== "mark") properties.onPick?.(boxes.name(box), boxes.module(box));
  }
  function wheel(event: WheelEvent): void {
    const made = picture.current!;
    if (event.ctrlKey || event.altKey) {
      event.preventDefault();
      const area = made.canvas.getBoundingClientRect();
      made.zoomBy(Math.exp(event.deltaY / 300), (event.clientX - area.left) / area.width);
    } else if (event.deltaX) { event.preventDefault(); made.moveBy(event.deltaX / area_width(made)); }
  }
  function key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const made = picture.current!;
    if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      const box = made.step(event.key);
      if (box >= 0) { made.reveal(box); say(box); }
    } else if (event.key === "Enter") properties.onFocus(Math.max(made.cursor, 0));
    else if (event.key === "w") made.zoomBy(0.7, 0.5);
    else if (event.key === "s") made.zoomBy(1 / 0.7, 0.5);
    else if (event.key === "a") made.moveBy(-0.2);
    else if (event.key === "d") made.moveBy(0.2);
  }
  return (
    <section class="flame">
      <div class="view" ref={view} tabIndex={0} role="application" aria-label={`${properties.label}. Arrow keys move, Enter zooms, Escape shows the whole picture.`}
        onMouseMove={hover} onMouseLeave={leave} onClick={click} onDblClick={pick} onWheel={wheel} onScroll={() => picture.current?.draw()} onKeyDown={key}>
        <canvas ref={canvas} />
        <div ref={spacer} />
      </div>
      <output class="detail" ref={detail} aria-live="polite" />
      <div class="tip" ref={tip} hidden />
    </section>
  );
}

// The box that is zoomed to, also in the next picture of a recording that grows, where it has another number.
function useCarried(boxes: Boxes, given: number): number {
  const last = useRef({ boxes, given, focus: given });
  if (last.current.given !== given) last.current = { boxes, given, focus: given === last.current.focus ? last.current.focus : given };
  if (last.current.boxes !== boxes) last.current = { boxes, given, focus: last.current.focus > 0 ? boxes.same(last.current.boxes, last.current.focus) : 0 };
  return last.current.focus;
}

const area_width = (made: Picture) => made.view.clientWidth || 1;
