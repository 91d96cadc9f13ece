// The page: what the recording is, the timeline, and one of the views under the filters.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Parameters, type Summary, type TreeData, askEarly } from "./api";
import { Nothing, Wait, useData } from "./data";
import { ChartView } from "./chart";
import { DiffView } from "./diff";
import { Filters } from "./filters";
import { Flame } from "./flame";
import { FunctionTable, Sandwich, pickFunction } from "./functions";
import { Help } from "./help";
import { LiveBar, LostBar, begin, isLive } from "./live";
import { KINDS } from "./palette";
import { QualityView } from "./quality";
import { Speedscope } from "./speedscope";
import { type State, type View, change, state as now, useAppState } from "./state";
import { toggleTheme } from "./theme";
import { Timeline } from "./timeline";
import { count, percent, samples } from "./words";
import "./page.css";

const VIEWS: [View, string][] = [["flame", "Flame graph"], ["table", "Table"], ["sandwich", "Sandwich"], ["quality", "Data quality"], ["chart", "Flame chart"], ["diff", "Difference"]];

function App() {
  const state = useAppState();
  const recordings = useData<{ recordings: Summary[] }>("recordings", []);
  const chosen = useData<Summary>("summary", summaryOf(state));
  const search = useRef<HTMLInputElement>(null);
  const [matches, setMatches] = useState("");
  const [help, setHelp] = useState(false);
  useEffect(() => {
    const press = (event: KeyboardEvent) => keys(event, search.current, () => setHelp((shown) => !shown), () => {
      const open = document.querySelector(".help") !== null;
      setHelp(false);
      return open;
    });
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
  if (!recordings.data) return <Wait of={recordings} />;
  const all = recordings.data.recordings, one = all[Number(state.file)] ?? all[0]!;
  const views = VIEWS.filter(([view]) => view !== "diff" || all.length > 1);
  return (
    <>
      <LostBar />
      <header>
        <div class="line">
          <h1 id="title" title={one.command || one.name}>{one.command || one.name}</h1>
          {all.length > 1 ? <select aria-label="Recording" value={state.file} onChange={(event) => change({ file: event.currentTarget.value, focus: null, thread: null })}>{all.map((each, index) => <option key={index} value={String(index)}>{each.name}</option>)}</select> : null}
          <span class="soft">{one.hostname ? `${one.hostname}, Linux ${one.kernel} ${one.arch}, ${one.cpus} CPUs` : one.name}{one.guests.length ? `; guests ${some(one.guests)}` : ""}</span>
          <span class="grow" />
          <LiveBar />
          <button type="button" title="?" onClick={() => setHelp(true)}>Keys</button>
          <button type="button" id="theme" onClick={toggleTheme}>Dark / light</button>
        </div>
        <Facts one={one} chosen={chosen.data} filtered={state.hasFilter} />
        <nav class="line" aria-label="Views">
          {views.map(([view, label], index) => <button type="button" key={view} id={`view-${view}`} class={state.view === view ? "tab chosen" : "tab"} aria-current={state.view === view ? "page" : undefined} title={String(index + 1)} onClick={() => change({ view, focus: null })}>{label}</button>)}
          <input id="search" ref={search} type="search" placeholder="Search: text or /regular expression/" aria-label="Search functions" autocomplete="off" spellcheck={false}
            value={state.get("search")} onInput={(event) => change({ search: event.currentTarget.value || null }, false)} />
          <output id="matches">{state.get("search") && state.view !== "quality" ? matches : ""}</output>
        </nav>
        <Filters state={state} />
      </header>
      {state.view === "quality" || state.view === "diff" ? null : <Timeline state={state} guests={one.guests.length > 0} />}
      <main>
        {state.view === "table" ? <FunctionTable state={state} onMatches={setMatches} />
          : state.view === "sandwich" ? <Sandwich state={state} onMatches={setMatches} />
          : state.view === "quality" ? <QualityView state={state} />
          : state.view === "chart" ? <ChartView state={state} onMatches={setMatches} />
          : state.view === "diff" ? <DiffView state={state} recordings={all} onMatches={setMatches} />
          : <FlameView state={state} guests={one.guests.length > 0} onMatches={setMatches} />}
      </main>
      {help ? <Help onClose={() => setHelp(false)} /> : null}
    </>
  );
}

function Facts({ one, chosen, filtered }: { one: Summary; chosen: Summary | null; filtered: boolean }) {
  const seen = chosen ?? one, stacks = seen.samples - seen.none;
  return (
    <div class="line" id="facts">
      <span id="summary">{samples(seen.samples)}{filtered ? ` of ${count(one.samples)}` : ""} in {one.duration_s.toFixed(1)} s, {count(one.lost)} lost{one.finished || isLive() ? "" : "; not finished: the recorder still runs or was killed"}</span>
      <button type="button" class="link" title="Data quality" onClick={() => change({ view: "quality", focus: null })}>
        {stacks ? `✓ ${percent(seen.verdicts["reliable"] ?? 0, stacks, 1)} reliable, ${percent(seen.whole, stacks, 1)} whole, ✂ ${percent(seen.cut, stacks, 1)} cut` : "no user stacks"}
      </button>
      {seen.added.length ? <span title={seen.added.map((each) => each.name).join(", ")}>some names are from files that were sent</span> : null}
      <span class="soft">{one.trigger}{one.frequency ? `, ${one.frequency} samples a second and CPU` : ""}</span>
    </div>
  );
}

const summaryOf = (state: State): Parameters => [["file", state.file], ...state.filter()];
const treeOf = (state: State): Parameters =>
  [["file", state.file], ["by", state.get("by", "comm")], ["inverted", state.get("inverted", "0")], ["marks", state.get("marks", "1")], ...state.filter()];

function FlameView({ state, guests, onMatches }: { state: State; guests: boolean; onMatches: (text: string) => void }) {
  const by = state.get("by", "comm"), inverted = state.get("inverted", "0"), marks = state.get("marks", "1");
  const loaded = useData<TreeData>("tree", treeOf(state));
  const data = loaded.data;
  const kinds = new Set(data?.kind);
  return (
    <>
      <div class="line tools">
        <label>Begin with{" "}
          <select id="by" value={by} onChange={(event) => change({ by: event.currentTarget.value, focus: null })}>
            {[["comm", "process name"], ["process", "process"], ["thread", "thread"], ["none", "functions"], ...(guests ? [["guest", "machine"], ["vcpu", "virtual CPU"]] : [])].map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
        <label><input type="checkbox" id="flip" checked={state.get("flip") === "1"} onChange={(event) => change({ flip: event.currentTarget.checked ? "1" : null })} /> flames upwards</label>
        <label><input type="checkbox" id="inverted" checked={inverted === "1"} onChange={(event) => change({ inverted: event.currentTarget.checked ? "1" : null, focus: null })} /> begin with what ran</label>
        <label><input type="checkbox" id="marks" checked={marks === "1"} onChange={(event) => change({ marks: event.currentTarget.checked ? null : "0", focus: null })} /> stacks that are not whole apart</label>
        <Save state={state} by={by} marks={marks} />
        <Speedscope state={state} by={by} marks={marks} title={document.getElementById("title")?.textContent ?? ""} />
        <button type="button" id="whole" title="Esc" onClick={() => change({ focus: null })}>Whole picture</button>
        <span class="grow" />
        <span class="keys">{Object.entries(KINDS).filter(([kind]) => kinds.has(kind)).map(([kind, { label }]) => <span class="key" key={kind}><i class={`k-${kind}`} />{label}</span>)}</span>
        {data?.left_out ? <span class="soft">{count(data.left_out)} smaller boxes are left out</span> : null}
      </div>
      {data ? data.total[0] ? <Flame data={data} search={state.get("search")} flip={state.get("flip") === "1"} focus={Number(state.get("focus", "0"))} label="Flame graph" unit="samples" kept
        onFocus={(box, moved) => change({ focus: box ? String(box) : null, ...(moved ? { part: now().get("part") } : {}) }, !moved)} onMatches={onMatches} onPick={pickFunction} /> : <Nothing state={state} /> : <Wait of={loaded} />}
    </>
  );
}

const some = (names: string[]) => (names.length > 4 ? `${names.slice(0, 4).join(", ")} and ${names.length - 4} more` : names.join(", "));

const FORMATS = ["folded", "svg", "html", "pprof", "otlp", "speedscope", "firefox", "perf-script", "chrome-trace", "parquet"];

// The chosen samples as a file of another format; the page stays where it is.
function Save({ state, by, marks }: { state: State; by: string; marks: string }) {
  const save = (format: string) => {
    if (!format) return;
    // A link that is saved: an answer that is none does not take the page's place.
    const link = document.createElement("a");
    link.href = `/api/export?${new URLSearchParams([["format", format], ["file", state.file], ["by", by], ["marks", marks], ...state.filter()])}`;
    link.download = "";
    link.click();
  };
  return (
    <select id="save" aria-label="Save these samples as" value="" onChange={(event) => { save(event.currentTarget.value); event.currentTarget.value = ""; }}>
      <option value="">Save as…</option>
      {FORMATS.map((format) => <option key={format} value={format}>{format}</option>)}
    </select>
  );
}

// Where letters are written, or choose; a box to tick takes none.
const isField = (target: EventTarget | null) =>
  target instanceof HTMLSelectElement || (target instanceof HTMLInputElement && !["checkbox", "file"].includes(target.type));

// `close` says whether there was something to close.
function keys(event: KeyboardEvent, search: HTMLInputElement | null, help: () => void, close: () => boolean): void {
  const key = event.key.toLowerCase();
  if (((event.ctrlKey || event.metaKey) && key === "f") || (key === "/" && !isField(event.target))) {
    event.preventDefault();
    search?.focus();
    search?.select();
    return;
  }
  const picture = document.querySelector<HTMLElement>(".flame .view");
  if (event.key === "Enter" && event.target === search) picture?.dispatchEvent(new CustomEvent("match", { detail: event.shiftKey ? -1 : 1 }));
  if (event.key === "Escape") {
    if (close()) return;
    if (event.target === search) { change({ search: null }); search?.blur(); } else change({ focus: null });
    return;
  }
  if (isField(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = VIEWS[Number(event.key) - 1];
  if (view) change({ view: view[0], focus: null });
  if (event.key === "?") help();
  if (key === "i") change({ flip: now().get("flip") === "1" ? null : "1" });
  if (key === "v") change({ inverted: now().get("inverted") === "1" ? null : "1", focus: null });
  if (key === "t") toggleTheme();
  if (key === "0") change({ focus: null });
  const elsewhere = document.activeElement?.closest(".view, .table, .choices, .help, #timeline");
  if (picture && !elsewhere && (event.key.startsWith("Arrow") || "wasd+=-".includes(key))) {
    // Keys that move the picture reach it from wherever they mean nothing else.
    picture.focus({ preventScroll: true });
    picture.dispatchEvent(new KeyboardEvent("keydown", { key: event.key }));
    event.preventDefault();
  }
}

const first = now();
askEarly("recordings", []);
askEarly("summary", summaryOf(first));
if (first.view === "flame") askEarly("tree", treeOf(first));
// Whether it grows is known before the first view is shown.
void begin().catch(() => undefined).then(() => render(<App />, document.getElementById("app")!));
