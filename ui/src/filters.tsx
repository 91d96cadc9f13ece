// The filters: what is chosen stands as a row of words that can be taken away; a menu offers what the recording holds.
import { useState } from "preact/hooks";
import type { Choices } from "./api";
import { useData } from "./data";
import { FILTERS, type FilterName, type State, change } from "./state";
import { count, exactly, file, unpattern } from "./words";

const LABELS: Record<FilterName, string> = {
  comm: "process name", pid: "process", tid: "thread", cpu: "CPU", on: "trigger", module: "file", verdict: "verdict", ending: "ending", stop: "why it stops",
  guest: "guest", vcpu: "virtual CPU", kernel: "kernel release", mode: "user or kernel", cgroup: "control group",
};
const PATTERNS = new Set<string>(["comm", "on", "module", "guest", "kernel", "cgroup"]);
const SHOWN = 200;

// "1234 name" of the choices is the number alone in the address.
const valueOf = (name: string, choice: string) => (PATTERNS.has(name) ? exactly(choice) : choice.split(" ")[0]!);

export function Filters({ state }: { state: State }) {
  const { data } = useData<Choices>("choices", [["file", state.file]]);
  const chosen = FILTERS.flatMap((name) => state.parts.getAll(name).map((value) => ({ name, value })));
  const remove = (name: string, value: string) => change({ [name]: state.parts.getAll(name).filter((one) => one !== value), focus: null });
  const add = (name: string, value: string) => change({ [name]: [...new Set([...state.parts.getAll(name), value])], focus: null });
  return (
    <div class="filters line" role="group" aria-label="Filters">
      <Menu choices={data} onAdd={add} />
      {chosen.map(({ name, value }) => (
        <span class="chip" key={`${name}=${value}`}>{LABELS[name]}: {name === "module" ? file(unpattern(value)) : unpattern(value)}
          <button type="button" aria-label={`Take the filter ${LABELS[name]} ${value} away`} onClick={() => remove(name, value)}>×</button>
        </span>))}
      {chosen.length > 1 ? <button type="button" onClick={() => change(Object.fromEntries([...FILTERS, "focus"].map((name) => [name, null])))}>no filter</button> : null}
    </div>
  );
}

function Menu({ choices, onAdd }: { choices: Choices | null; onAdd: (name: string, value: string) => void }) {
  const [name, setName] = useState<FilterName | "">("");
  const [text, setText] = useState("");
  const all = name && choices ? (choices[name] ?? []) : [];
  const fitting = all.filter(([value]) => value.toLowerCase().includes(text.toLowerCase()));
  const close = () => { setName(""); setText(""); };
  return (
    <div class="menu">
      <select id="filter" aria-label="Add a filter" value={name} onChange={(event) => { setName(event.currentTarget.value as FilterName); setText(""); }}>
        <option value="">Filter…</option>
        {FILTERS.filter((one) => choices?.[one]?.length).map((one) => <option key={one} value={one}>{LABELS[one]}</option>)}
      </select>
      {name ? (
        <div class="choices" onKeyDown={(event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } }}>
          <div class="line"><input value={text} placeholder="part of the name" aria-label="Part of the name" onInput={(event) => setText(event.currentTarget.value)} /><button type="button" onClick={close}>close</button></div>
          <ul>{fitting.slice(0, SHOWN).map(([value, samples]) => (
            <li key={value}><button type="button" onClick={() => { onAdd(name, valueOf(name, value)); close(); }}><span>{value}</span><small>{count(samples)}</small></button></li>))}
          </ul>
          {fitting.length > SHOWN ? <p class="soft">{count(fitting.length - SHOWN)} more</p> : null}
        </div>
      ) : null}
    </div>
  );
}
