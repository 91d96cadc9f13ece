// Data quality: how much of the picture is proved, why the rest is not, what it costs in samples, and what mends it.
import type { Cause, Machine, QualityData } from "./api";
import { Wait, useData } from "./data";
import { type State, change } from "./state";
import { Upload, Uploaded } from "./upload";
import { count, exactly, file, percent } from "./words";

export function QualityView({ state }: { state: State }) {
  const loaded = useData<QualityData>("quality", [["file", state.file], ...state.filter()]);
  const data = loaded.data;
  if (!data) return <Wait of={loaded} />;
  const stacks = data.samples - data.none;
  const parts: [string, string, number, string][] = [
    ["proved", "✓", data.proved, "The stack reaches the thread's start, and no function is missing on it (verdict reliable)."],
    ["assumed", "~", data.assumed, "The stack reaches an accepted end, but something speaks against relying on it."],
    ["cut", "✂", data.cut, "The stack stops before its end: callers are missing."],
    ["unknown", "?", data.unknown, "An imported profile that does not say where its stacks end."],
  ];
  return (
    <div class="quality">
      <h2>How far this picture can be trusted</h2>
      <Bar data={data} />
      <table class="plain" id="proof">
        <tbody>{parts.filter(([name, , samples]) => samples || name !== "unknown").map(([name, sign, samples, says]) => (
          <tr key={name}><th><i class={`q-${name}`} /> {sign} {name}</th><td class="number">{percent(samples, stacks)}</td><td class="number">{count(samples)}</td><td>{says}</td></tr>))}
          <tr><th><i class="q-none" /> ∅ no user stack</th><td class="number" /><td class="number">{count(data.none)}</td><td>Threads of the kernel and threads that were exiting; nothing is missing.</td></tr>
          <tr><th>! lost</th><td class="number" /><td class="number">{count(data.lost)}</td><td>{data.lost ? `Samples that were taken and could not be kept: ${Object.entries(data.counters).map(([name, value]) => `${name} ${count(value)}`).join(", ")}.` : "Every sample that was taken was kept."}</td></tr>
        </tbody>
      </table>
      {data.machines.length ? <Machines machines={data.machines} samples={data.samples} /> : null}
      <Causes causes={data.causes.filter((cause) => cause.ending === "cut")} stacks={stacks} />
      {data.reasons.length ? <><h2>Why stacks are unreliable</h2>
        <table class="plain"><tbody>{data.reasons.map((reason) => <tr key={reason.stop}><th>{reason.stop}</th><td class="number">{percent(reason.samples, stacks)}</td><td class="number">{count(reason.samples)}</td><td>{reason.meaning} <em>{reason.advice}</em></td></tr>)}</tbody></table></> : null}
      <h2>Files whose functions have no names</h2>
      <p class="line"><Upload state={state} label="Name them with a file…" /><span class="soft">the program or library with its symbols, /proc/kallsyms, or System.map; it is used for this page and not kept</span></p>
      <Uploaded state={state} />
      {data.unnamed.length ? (
        <table class="plain" id="unnamed">
          <thead><tr><th>File</th><th class="number">Ran in it, unnamed</th><th class="number">Largest unnamed part</th><th class="number">Addresses</th><th>What mends it</th></tr></thead>
          <tbody>{data.unnamed.map((row) => (
            <tr key={row.path}><th title={`${row.path} ${row.build_id}`}>{row.path ? file(row.path) : "no file"}</th><td class="number">{percent(row.own, data.samples)}</td><td class="number">{percent(row.most, data.samples)}</td><td class="number">{count(row.addresses)}</td><td>{row.advice} {row.path && row.kind !== "jit" && row.kind !== "anon" ? <Upload state={state} module={row.path} label="Send a file…" /> : null}</td></tr>))}
          </tbody>
        </table>) : <p>None: every function has its name.</p>}
      <h2>How the stacks end</h2>
      <table class="plain"><tbody>{data.causes.filter((cause) => cause.ending !== "cut").map((cause) => <tr key={cause.stop}><th>{cause.stop}</th><td class="number">{count(cause.samples)}</td><td>{cause.meaning}</td></tr>)}</tbody></table>
    </div>
  );
}

function Bar({ data }: { data: QualityData }) {
  const parts = (["proved", "assumed", "cut", "unknown", "none"] as const).map((name) => [name, data[name]] as const).filter(([, samples]) => samples);
  return <div class="bars" role="img" aria-label={parts.map(([name, samples]) => `${name} ${percent(samples, data.samples, 1)}`).join(", ")}>
    {parts.map(([name, samples]) => <span key={name} class={`q-${name}`} style={{ flexGrow: samples }} title={`${name}: ${count(samples)} samples`} />)}
  </div>;
}

function Machines({ machines, samples }: { machines: Machine[]; samples: number }) {
  return (
    <>
      <h2>Machines</h2>
      <table class="plain" id="machines">
        <thead><tr><th>Machine</th><th class="number">Share</th><th class="number">Samples</th><th class="number">Whole</th><th class="number">In the kernel</th><th class="number" title="Of the samples in the kernel: those whose kernel part leads to the kernel's entry, whatever their user part is">Kernel part whole</th><th>Kernel</th><th>Registers read by</th><th>Samples of each virtual CPU</th></tr></thead>
        <tbody>{machines.map((row) => (
          <tr key={row.name}>
            <th><button type="button" class="link" title="Show only these samples" onClick={() => change({ view: "flame", guest: exactly(row.choose), focus: null })}>{row.name}</button></th>
            <td class="number">{percent(row.samples, samples)}</td><td class="number">{count(row.samples)}</td>
            <td class="number">{percent(row.whole, row.samples)}</td><td class="number">{percent(row.in_kernel, row.samples)}</td>
            <td class="number">{row.kernel_known ? percent(row.kernel_whole, row.kernel_known) : "-"}</td>
            <td>{row.kernel || "not known"}</td><td>{row.by}</td>
            <td>{row.vcpus.slice(0, 16).map(([vcpu, part]) => `${vcpu}: ${count(part)}`).join(", ")}{row.vcpus.length > 16 ? `, ${row.vcpus.length - 16} more` : ""}</td>
          </tr>))}
        </tbody>
      </table>
    </>
  );
}

const FILES_SHOWN = 6;

function CausedIn({ cause, modules }: { cause: Cause; modules: Cause["modules"] }) {
  return <>{modules.map((module) => (
    <div key={module.path}><button type="button" class="link" title={module.path} onClick={() => change({ view: "flame", stop: cause.stop, module: exactly(module.path), focus: null })}>{file(module.path)}</button> {count(module.samples)}</div>))}</>;
}

function Causes({ causes, stacks }: { causes: Cause[]; stacks: number }) {
  if (!causes.length) return <><h2>Why stacks are cut</h2><p>No stack is cut.</p></>;
  return (
    <>
      <h2>Why stacks are cut, and what mends it</h2>
      <table class="plain" id="causes">
        <thead><tr><th>Reason</th><th class="number">Share</th><th class="number">Samples</th><th>In files</th><th>What it means, and what to do</th></tr></thead>
        <tbody>{causes.map((cause) => (
          <tr key={cause.stop}>
            <th><button type="button" class="link" title="Show only these samples" onClick={() => change({ view: "flame", stop: cause.stop, focus: null })}>{cause.stop}</button></th>
            <td class="number">{percent(cause.samples, stacks)}</td><td class="number">{count(cause.samples)}</td>
            <td><CausedIn cause={cause} modules={cause.modules.slice(0, FILES_SHOWN)} />
              {cause.modules.length > FILES_SHOWN ? <details><summary>{cause.modules.length - FILES_SHOWN} more</summary><CausedIn cause={cause} modules={cause.modules.slice(FILES_SHOWN)} /></details> : null}</td>
            <td>{cause.meaning} <em>{cause.advice}</em></td>
          </tr>))}
        </tbody>
      </table>
    </>
  );
}
