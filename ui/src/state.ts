// The state of the page stands in the address, so that a view can be kept, sent, and left with the browser's Back.
import { useEffect, useState } from "preact/hooks";
import type { Parameters } from "./api";

export const FILTERS = ["comm", "pid", "tid", "cpu", "on", "module", "verdict", "ending", "stop", "guest", "vcpu", "kernel", "mode", "cgroup"] as const;
export type FilterName = (typeof FILTERS)[number];

export type View = "flame" | "table" | "sandwich" | "quality" | "chart" | "diff";

export class State {
  constructor(readonly parts: URLSearchParams) {}
  get(name: string, fallback = ""): string { return this.parts.get(name) ?? fallback; }
  get view(): View { return this.get("view", "flame") as View; }
  get file(): string { return this.get("file", "0"); }
  // A changed copy: null takes a parameter away, a list sets it several times.
  with(changes: Record<string, string | string[] | null>): State {
    const parts = new URLSearchParams(this.parts);
    for (const [name, value] of Object.entries(changes)) {
      parts.delete(name);
      for (const one of Array.isArray(value) ? value : value ? [value] : []) parts.append(name, one);
    }
    return new State(parts);
  }
  // What the server is asked with: the filters alone.
  filter(): Parameters {
    const names: string[] = [...FILTERS, "from", "to"];
    return [...this.parts].filter(([name]) => names.includes(name));
  }
  get hasFilter(): boolean { return this.filter().length > 0; }
  text(): string { return this.parts.toString(); }
}

const read = () => new State(new URLSearchParams(location.hash.slice(1)));
let current = read();
const listeners = new Set<() => void>();

export const state = () => current;

// `remember` makes a step that Back undoes; typing in a field does not.
export function change(changes: Record<string, string | string[] | null>, remember = true): void {
  // What is seen of a box ends with the box.
  const next = current.with("focus" in changes && !("part" in changes) ? { ...changes, part: null } : changes);
  if (next.text() === current.text()) return;
  write();
  current = next;
  const address = `#${next.text()}`;
  if (remember) history.pushState(null, "", address); else history.replaceState(null, "", address);
  for (const tell of listeners) tell();
}

// What changes with every frame stands in the state at once, and in the address when it rests: browsers refuse many changes of it a second.
const REST = 250;
let resting = 0;
export function settle(changes: Record<string, string | null>): void {
  current = current.with(changes);
  if (!resting) resting = window.setTimeout(write, REST);
}
function write(): void {
  if (!resting) return;
  window.clearTimeout(resting);
  resting = 0;
  history.replaceState(null, "", `#${current.text()}`);
}

function reread(): void {
  // The address of before is not written over the one that was chosen.
  window.clearTimeout(resting);
  resting = 0;
  current = read();
  for (const tell of listeners) tell();
}
window.addEventListener("popstate", reread);
window.addEventListener("hashchange", reread);

export function useAppState(): State {
  const [, redraw] = useState(0);
  useEffect(() => {
    const tell = () => redraw((count) => count + 1);
    listeners.add(tell);
    return () => { listeners.delete(tell); };
  }, []);
  return current;
}
