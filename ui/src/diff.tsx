// What changed between two recordings. Both are normalised: shares are compared, not samples.
import { useMemo } from "preact/hooks";
import type { DiffData, Summary } from "./api";
import { Wait, useData } from "./data";
import { Flame } from "./flame";
import { type State, change } from "./state";
import { type Column, Table } from "./table";
import { matcher, percent, points, samples } from "./words";

export function DiffView({ state, recordings, onMatches }: { state: State; recordings: Summary[]; onMatches: (text: string) => void }) {
  const before = state.get("before", "0"), after = state.get("after", String(recordings.length - 1));
  const loaded = useData<DiffData>("diff", [["before", before], ["after", after], ["by", state.get("by", "comm")], ["inverted", state.get("inverted", "0")], ["marks", state.get("marks", "1")], ...state.filter()]);
  const data = loaded.data;
  if (recordings.length < 2) return <p class="wait">Start `unspool serve` with two recordings to see what changed between them.</p>;
  const side = (name: string, value: string, found?: Summary) => (
    <label>{name}{" "}
      <select value={value} onChange={(event) => change({ [name]: event.currentTarget.value, focus: null })}>{recordings.map((one, index) => <option key={index} value={String(index)}>{one.name}</option>)}</select>
      {found ? <small> {samples(found.samples)}, {percent(found.whole, found.samples - found.none, 1)} of user stacks whole</small> : null}
    </label>
  );
  return (
    <div class="diff">
      <div class="line">{side("before", before, data?.before)}{side("after", after, data?.after)}
        <button type="button" id="swap" onClick={() => change({ before: after, after: before, focus: null })}>⇄ the other way round</button><span class="key"><i class="more" />+ more than before</span><span class="key"><i class="less" />− less than before</span></div>
      {data ? <>
        <Flame data={data.tree} search={state.get("search")} flip={state.get("flip") === "1"} focus={Number(state.get("focus", "0"))} label="Difference" unit="" kept onMatches={onMatches}
          onFocus={(box) => change({ focus: box ? String(box) : null })} />
        <Changes data={data} state={state} />
      </> : <Wait of={loaded} />}
    </div>
  );
}

function Changes({ data, state }: { data: DiffData; state: State }) {
  const rows = data.functions, search = state.get("search");
  const shown = useMemo(() => {
    const test = matcher(search), all = rows.name.map((_, row) => row);
    return test ? all.filter((row) => test(rows.name[row]!) || test(rows.module[row]!)) : all;
  }, [rows, search]);
  const own = (row: number) => rows.own_after[row]! - rows.own_before[row]!, total = (row: number) => rows.total_after[row]! - rows.total_before[row]!;
  const share = (id: string, title: string, values: number[]): Column => ({ id, title, number: true, value: (row) => values[row]!, cell: (row) => percent(values[row]!, 1) });
  const columns: Column[] = [
    { id: "change", title: "Self, points", number: true, long: true, value: (row) => Math.abs(own(row)), cell: (row) => points(own(row)) },
    share("own-before", "before", rows.own_before), share("own-after", "after", rows.own_after),
    { id: "change-total", title: "Total, points", number: true, long: true, value: (row) => Math.abs(total(row)), cell: (row) => points(total(row)) },
    share("total-before", "before", rows.total_before), share("total-after", "after", rows.total_after),
    { id: "function", title: "Function", wide: true, value: (row) => rows.name[row]!, cell: (row) => <span title={rows.name[row]}>{rows.name[row]}</span> },
    { id: "module", title: "File", value: (row) => rows.module[row]!, cell: (row) => rows.module[row]! },
  ];
  return <Table id="changes" label="What changed" rows={shown} columns={columns} sort={state.get("diffsort", "change")} onSort={(diffsort) => change({ diffsort })} />;
}
