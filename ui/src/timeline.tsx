// Samples over time, stacked by verdict, process or CPU; dragging over it chooses a time.
import { useEffect, useRef, useState } from "preact/hooks";
import type { TimelineData } from "./api";
import { ticks } from "./axis";
import { useData } from "./data";
import { HATCHED, SERIES, VERDICTS } from "./palette";
import { type State, change } from "./state";
import { isDark, onRatio, onTheme } from "./theme";
import { count } from "./words";

const KINDS = ["verdict", "ending", "process", "cpu", "trigger", "mode", "cgroup"];
// What the server gives for a profile that was imported without times.
const NO_TIME = 1e-6;
const NAMES: Record<string, string> = { cpu: "CPU", vcpu: "virtual CPU", mode: "user or kernel", cgroup: "control group" };
const colour = (name: string, place: number, kind: string) => (kind === "verdict" || kind === "ending" ? (VERDICTS[name] ?? "#7f7f7f") : SERIES[place % SERIES.length]!);

export function Timeline({ state, guests }: { state: State; guests: boolean }) {
  const kind = state.get("series", "verdict");
  const times = state.filter().filter(([name]) => name !== "from" && name !== "to");
  const { data } = useData<TimelineData>("timeline", [["file", state.file], ["series", kind], ["bins", "400"], ...times]);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [drag, setDrag] = useState<[number, number] | null>(null);
  const chosen = brushed(state, drag, data);

  useEffect(() => {
    const at = canvas.current;
    if (!at || !data) return;
    const draw = () => paint(at, data, kind, chosen);
    const resized = new ResizeObserver(draw);
    resized.observe(at.parentElement!);
    const forget = onTheme(draw), same = onRatio(draw);
    draw();
    return () => { resized.disconnect(); forget(); same(); };
  }, [data, kind, chosen?.[0], chosen?.[1]]);

  const place = (event: PointerEvent) => {
    const area = canvas.current!.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - area.left) / area.width));
  };
  function down(event: PointerEvent): void {
    canvas.current!.setPointerCapture(event.pointerId);
    setDrag([place(event), place(event)]);
  }
  function move(event: PointerEvent): void {
    if (drag) setDrag([drag[0], place(event)]);
    if (data) canvas.current!.title = said(data, place(event));
  }
  function up(event: PointerEvent): void {
    if (!drag || !data) return;
    const [from, to] = [Math.min(drag[0], place(event)), Math.max(drag[0], place(event))];
    setDrag(null);
    // A click is no choice of a time: it takes the choice back.
    if (to - from < 0.003) change({ from: null, to: null, focus: null });
    else change({ from: (from * data.duration_s).toFixed(3), to: (to * data.duration_s).toFixed(3), focus: null });
  }
  // What dragging does, for keys and for exact times.
  const moment = (name: "from" | "to", empty: string) => (
    <input type="number" min="0" step="any" aria-label={name === "from" ? "From this second on" : "To this second"} placeholder={empty} value={state.get(name)}
      onChange={(event) => change({ [name]: event.currentTarget.value || null, focus: null })} />);
  if (data && data.duration_s <= NO_TIME && data.series.length) return <p class="timeline soft">The samples have no times.</p>;
  return (
    <section class="timeline" aria-label="Samples over time">
      <div class="line">
        <label>Timeline by{" "}
          <select id="series" value={kind} onChange={(event) => change({ series: event.currentTarget.value })}>{[...KINDS, ...(guests ? ["guest", "vcpu"] : [])].map((one) => <option key={one} value={one}>{NAMES[one] ?? one}</option>)}</select>
        </label>
        {data?.series.map((one, index) => (
          <span key={one.name} class="key"><i style={{ backgroundColor: colour(one.name, index, kind) }} class={HATCHED.has(one.name) ? "hatched" : ""} />{one.name} {count(total(one.counts))}</span>))}
        <span class="grow" />
        <span id="time" class="soft">{state.get("from") || state.get("to") ? <button type="button" onClick={() => change({ from: null, to: null, focus: null })}>all</button> : "drag, or type:"}{" "}
          {moment("from", "0")} s to {moment("to", data ? data.duration_s.toFixed(3) : "")} s</span>
      </div>
      <div class="strip"><canvas id="timeline" ref={canvas} role="img" aria-label={data ? summed(data) : "Samples over time"} onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={() => setDrag(null)} /></div>
    </section>
  );
}

const total = (counts: number[]) => counts.reduce((sum, value) => sum + value, 0);
const summed = (data: TimelineData) => `Samples over ${data.duration_s.toFixed(1)} s: ${data.series.map((one) => `${one.name} ${count(total(one.counts))}`).join(", ") || "none"}`;

// What stands at a place, in words: colours alone say nothing.
function said(data: TimelineData, place: number): string {
  const bin = Math.min(data.bins - 1, Math.floor(place * data.bins)), length = data.duration_s / data.bins;
  const lines = data.series.filter((one) => one.counts[bin]).map((one) => `${one.name} ${count(one.counts[bin]!)}`);
  return [`${(bin * length).toFixed(3)} s to ${((bin + 1) * length).toFixed(3)} s`, ...(lines.length ? lines : ["no sample"])].join("\n");
}

function brushed(state: State, drag: [number, number] | null, data: TimelineData | null): [number, number] | null {
  if (drag) return [Math.min(...drag), Math.max(...drag)];
  if (!data || !(state.get("from") || state.get("to"))) return null;
  return [Number(state.get("from", "0")) / data.duration_s, state.get("to") ? Number(state.get("to")) / data.duration_s : 1];
}

function paint(canvas: HTMLCanvasElement, data: TimelineData, kind: string, chosen: [number, number] | null): void {
  const ratio = window.devicePixelRatio || 1, width = canvas.parentElement!.clientWidth, height = canvas.parentElement!.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d")!;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const sums = new Array<number>(data.bins).fill(0);
  for (const one of data.series) one.counts.forEach((value, bin) => { sums[bin]! += value; });
  const most = Math.max(1, ...sums), wide = width / data.bins, floor = height - 14;
  const base = new Array<number>(data.bins).fill(0);
  data.series.forEach((one, index) => {
    one.counts.forEach((value, bin) => {
      if (!value) return;
      context.fillStyle = colour(one.name, index, kind);
      const bottom = floor - (base[bin]! / most) * floor, high = (value / most) * floor;
      context.fillRect(bin * wide, bottom - high, Math.max(wide - (wide > 3 ? 0.5 : 0), 1), high);
      if (HATCHED.has(one.name)) stripes(context, bin * wide, bottom - high, wide, high);
      base[bin]! += value;
    });
  });
  axis(context, data.duration_s, width, floor);
  if (chosen) {
    context.fillStyle = isDark() ? "rgba(0,0,0,.6)" : "rgba(255,255,255,.72)";
    context.fillRect(0, 0, chosen[0] * width, floor);
    context.fillRect(chosen[1] * width, 0, width - chosen[1] * width, floor);
  }
  canvas.dataset["most"] = String(most);
}

function stripes(context: CanvasRenderingContext2D, x: number, top: number, width: number, height: number): void {
  context.fillStyle = "rgba(255,255,255,.55)";
  for (let at = top + 2; at < top + height; at += 4) context.fillRect(x, at, width, 1);
}

function axis(context: CanvasRenderingContext2D, seconds: number, width: number, floor: number): void {
  const { step, digits } = ticks(0, seconds, width);
  context.fillStyle = isDark() ? "#a9adb5" : "#5b5b5b";
  context.font = "10.5px system-ui, sans-serif";
  context.textBaseline = "bottom";
  for (let at = 0; at <= seconds; at += step) {
    const x = (at / seconds) * width;
    context.fillRect(x, floor, 1, 3);
    const text = `${at.toFixed(digits)} s`;
    context.fillText(text, Math.min(x + 3, width - context.measureText(text).width), floor + 14);
  }
}
