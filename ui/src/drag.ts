// A picture under a pointer: dragging moves it, two fingers zoom it. A click stays a click.
import type { Picture } from "./picture";

// Pixels that a hand moves without meaning it.
const STILL = 4;

// Listens until the answer is called. `begun` is told when a drag begins.
export function pointed(made: Picture, begun: () => void): () => void {
  const down = new Map<number, { x: number; y: number }>();
  let dragged = false, start = { x: 0, y: 0 };
  const { view } = made;

  function press(event: PointerEvent): void {
    if (event.button) return;
    if (!down.size) { dragged = false; start = { x: event.clientX, y: event.clientY }; }
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }
  function move(event: PointerEvent): void {
    const before = down.get(event.pointerId);
    if (!before) return;
    // The button may have been let go of outside the window.
    if (!event.buttons) { down.clear(); return; }
    const is = { x: event.clientX, y: event.clientY };
    if (!dragged && down.size === 1 && Math.hypot(is.x - start.x, is.y - start.y) < STILL) return;
    if (!dragged) { dragged = true; begun(); view.setPointerCapture(event.pointerId); }
    if (down.size === 1) made.dragBy(is.x - before.x, event.pointerType === "mouse" ? is.y - before.y : 0);
    else pinch(before, is, [...down].find(([id]) => id !== event.pointerId)![1]);
    down.set(event.pointerId, is);
  }
  function pinch(before: { x: number }, is: { x: number }, other: { x: number }): void {
    const area = view.getBoundingClientRect(), was = Math.abs(before.x - other.x), apart = Math.abs(is.x - other.x);
    if (was > STILL && apart > STILL) made.zoomBy(was / apart, (other.x - area.left) / area.width);
  }
  const lift = (event: PointerEvent) => { down.delete(event.pointerId); };
  // The click that ends a drag chooses nothing.
  function click(event: MouseEvent): void {
    if (!dragged) return;
    dragged = false;
    event.stopPropagation();
  }
  const all: [string, EventListener, boolean][] = [
    ["pointerdown", press as EventListener, false], ["pointermove", move as EventListener, false], ["pointerup", lift as EventListener, false],
    ["pointercancel", lift as EventListener, false], ["click", click as EventListener, true],
  ];
  for (const [name, listener, early] of all) view.addEventListener(name, listener, early);
  return () => { for (const [name, listener, early] of all) view.removeEventListener(name, listener, early); };
}
