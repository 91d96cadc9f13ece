// A file sent to the server to name addresses that have no name: an ELF file, /proc/kallsyms or System.map.
import { useState } from "preact/hooks";
import type { Summary } from "./api";
import { useData } from "./data";
import { shownIs } from "./live";
import { type State } from "./state";
import { count, file } from "./words";

interface Answer { version: number; modules: string[]; asked: number; named: number; error?: string; hint?: string }

async function send(chosen: File, state: State, module: string, base: string): Promise<Answer> {
  const parameters = new URLSearchParams([["file", state.file], ["name", chosen.name]]);
  if (module) parameters.set("module", module);
  if (base) parameters.set("base", base);
  const answer = await fetch(`/api/names?${parameters}`, { method: "POST", body: chosen });
  try { return (await answer.json()) as Answer; } catch { return { version: 0, modules: [], asked: 0, named: 0, error: `The server refused the file (${answer.status}).` }; }
}

// `module` is the file that the names are for; without one an ELF file is matched by its build id, a list of symbols names the kernel.
export function Upload({ state, module = "", label }: { state: State; module?: string; label: string }) {
  const [said, say] = useState("");
  const [waiting, setWaiting] = useState<File | null>(null);
  async function take(chosen: File | undefined, base = ""): Promise<void> {
    if (!chosen) return;
    say(`Reading ${chosen.name}…`);
    const answer = await send(chosen, state, module, base);
    if (!answer.error) {
      setWaiting(null);
      say(`${count(answer.named)} of ${count(answer.asked)} addresses have names now.`);
      shownIs(answer.version);
      return;
    }
    // It was linked for one place, and the kernel moved itself: the user may know where to.
    setWaiting(answer.hint?.includes("base") ? chosen : null);
    say([answer.error, answer.hint].filter(Boolean).join(". "));
  }
  return (
    <span class="upload">
      <label class="button">{label}<input type="file" class="away" aria-label={module ? `${label} ${module}` : label} onChange={(event) => void take(event.currentTarget.files?.[0])} /></label>
      {waiting ? <input class="base" type="text" placeholder="base, for example ffffffff9a000000" aria-label="Where the kernel begins" onChange={(event) => void take(waiting, event.currentTarget.value.trim())} /> : null}
      {said ? <output> {said}</output> : null}
    </span>
  );
}

// What was sent before, so that nobody takes these names for the recording's own.
export function Uploaded({ state }: { state: State }) {
  const { data } = useData<Summary>("summary", [["file", state.file]]);
  if (!data?.added.length) return null;
  return <p id="uploaded">Names from files that were sent, not from the recording: {data.added.map((one) => `${one.name} (${count(one.named)} of ${count(one.asked)} addresses of ${one.modules.map(file).join(", ")})`).join("; ")}.</p>;
}
