// The flame chart: one thread in the order of time. A box is a call that went on from sample to sample.
import type { ChartData } from "./api";
import { Nothing, Wait, useData } from "./data";
import { Flame } from "./flame";
import { pickFunction } from "./functions";
import { type State, change, state as now } from "./state";
import { count, samples as counted } from "./words";

export function ChartView({ state, onMatches }: { state: State; onMatches: (text: string) => void }) {
  const chosen = state.get("thread");
  const loaded = useData<ChartData>("chart", [["file", state.file], ...(chosen ? ([["thread", chosen]] as [string, string][]) : []), ...state.filter()]);
  const data = loaded.data;
  // A thread that is not there any more must not keep from choosing another.
  if (!data) return <><Wait of={loaded} />{loaded.error && chosen ? <p class="wait"><button type="button" onClick={() => change({ thread: null, focus: null })}>the busiest thread</button></p> : null}</>;
  if (!data.threads.length) return <Nothing state={state} />;
  return (
    <>
      <div class="line tools">
        <label>Thread{" "}
          <select id="thread" value={String(data.thread)} onChange={(event) => change({ thread: event.currentTarget.value, focus: null })}>
            {data.threads.map(([number, name, samples]) => <option key={number} value={String(number)}>{name}: {counted(samples)}</option>)}
          </select>
        </label>
        <span class="soft">from {data.start_s.toFixed(3)} s on; a call may have ended and begun again between two samples; gaps are times without a sample</span>
        {data.left_out_samples ? <strong>{count(data.left_out_samples)} later samples are not drawn: choose a shorter time</strong> : null}
      </div>
      {data.samples ? <Flame data={data} search={state.get("search")} flip={false} focus={Number(state.get("focus", "0"))} label="Flame chart" unit="µs" kept onMatches={onMatches}
        onFocus={(box, moved) => change({ focus: box ? String(box) : null, ...(moved ? { part: now().get("part") } : {}) }, !moved)} onPick={pickFunction} /> : <p class="wait">This thread has no sample that passes the filters.</p>}
    </>
  );
}
