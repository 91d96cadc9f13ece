// The flame graph: a canvas that shows a part of the tree, moved by mouse, wheel and keys.
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { TreeData } from "./api";
import { Boxes } from "./boxes";
import { pointed } from "./drag";
import { Picture, describe } from "./picture";
import { settle, state as now } from "./state";
import { onRatio, onTheme } from "./theme";
import { matcher, percent } from "./words";

export interface FlameProperties {
  data: TreeData; search: string; flip: boolean; focus: number; label: string; unit: string; whole?: number;
  // Whether what is seen of the box stands in the address; of several pictures on a page none does.
  kept?: boolean;
  onFocus: (box: number, moved?: boolean) => void; onMatches?: (text: string) => void; onPick?: (name: string, module: string) => void;
}

const MOVES: Record<string, (made: Picture) => void> = {
  w: (made) => made.zoomBy(0.7, 0.5), "+": (made) => made.zoomBy(0.7, 0.5), "=": (made) => made.zoomBy(0.7, 0.5),
  s: (made) => made.zoomBy(1 / 0.7, 0.5), "-": (made) => made.zoomBy(1 / 0.7, 0.5),
  a: (made) => made.moveBy(-0.2), d: (made) => made.moveBy(0.2),
};

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
    if (latest.current.kept) made.onPart = (part) => settle({ part: part || null });
    if (before) made.keep(before);
    // Flames upwards stand on the lower edge.
    const below = made.view.scrollHeight - made.view.scrollTop;
    made.size();
    if (latest.current.flip) made.view.scrollTop = made.view.scrollHeight - below;
    const resized = new ResizeObserver(() => made.size());
    resized.observe(view.current!);
    const forget = onTheme(() => made.draw()), same = onRatio(() => made.size());
    const still = pointed(made, () => { tip.current!.hidden = true; });
    return () => { resized.disconnect(); forget(); same(); still(); };
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

  // The address is the truth, also where this picture was moved since it was drawn for it.
  useEffect(() => { if (latest.current.kept) picture.current!.showPart(now().get("part")); });

  useEffect(() => {
    const at = view.current!;
    const step = (event: Event) => { const box = picture.current!.match((event as CustomEvent<number>).detail); if (box >= 0) say(box); };
    at.addEventListener("match", step);
    return () => at.removeEventListener("match", step);
  }, []);

  const say = (box: number) => { if (detail.current) detail.current.textContent = box < 0 ? "" : describe(boxes, box, latest.current.unit, latest.current.whole); };

  function hover(event: MouseEvent): void {
    const made = picture.current!, box = made.boxAt(event), sign = tip.current!;
    if (box !== made.hover) { made.hover = box; made.draw(); }
    sign.hidden = box < 0;
    if (box < 0) return;
    sign.textContent = describe(boxes, box, latest.current.unit, latest.current.whole, true);
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
    else MOVES[event.key.toLowerCase()]?.(made);
  }
  return (
    <section class="flame">
      <div class="view" ref={view} tabIndex={0} role="application" aria-label={`${properties.label}. Arrow keys move, Enter zooms, Escape shows the whole picture.`}
        onMouseMove={hover} onMouseLeave={leave} onClick={click} onDblClick={pick} onWheel={wheel} onScroll={() => picture.current?.draw()} onKeyDown={key}>
        <canvas ref={canvas} aria-hidden="true" />
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
