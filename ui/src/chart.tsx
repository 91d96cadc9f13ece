// The flame chart: one thread in the order of time. A box is a call that went on from sample to sample.
import type { ChartData } from "./api";
import { Wait, useData } from "./data";
import { Flame } from "./flame";
import { pickFunction } from "./functions";
import { type State, change } from "./state";
import { count } from "./words";

export function ChartView({ state, onMatches }: { state: State; onMatches: (text: string) => void }) {
  const chosen = state.get("thread");
  const loaded = useData<ChartData>("chart", [["file", state.file], ...(chosen ? ([["thread", chosen]] as [string, string][]) : []), ...state.filter()]);
  const data = loaded.data;
  if (!data) return <Wait of={loaded} />;
  if (!data.threads.length) return <p class="wait">No sample passes the filters.</p>;
  return (
    <>
      <div class="line tools">
        <label>Thread{" "}
          <select id="thread" value={String(data.thread)} onChange={(event) => change({ thread: event.currentTarget.value, focus: null })}>
            {data.threads.map(([number, name, samples]) => <option key={number} value={String(number)}>{name}: {count(samples)} samples</option>)}
          </select>
        </label>
        <span class="soft">from {data.start_s.toFixed(3)} s on; a call may have ended and begun again between two samples; gaps are times without a sample</span>
        {data.left_out_samples ? <strong>{count(data.left_out_samples)} later samples are not drawn: choose a shorter time</strong> : null}
      </div>
      {data.samples ? <Flame data={data} search={state.get("search")} flip={false} focus={Number(state.get("focus", "0"))} label="Flame chart" unit="µs" onMatches={onMatches}
        onFocus={(box, moved) => change({ focus: box ? String(box) : null }, !moved)} onPick={pickFunction} /> : <p class="wait">This thread has no sample that passes the filters.</p>}
    </>
  );
}
