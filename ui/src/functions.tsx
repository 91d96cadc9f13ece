// The table of functions, and the sandwich: who calls one of them, and whom it calls.
import { useEffect, useMemo } from "preact/hooks";
import type { FunctionsData, SandwichData } from "./api";
import { Nothing, Wait, useData } from "./data";
import { Flame } from "./flame";
import { type State, change } from "./state";
import { type Column, Table } from "./table";
import { among, count, file, matcher, percent } from "./words";

export function useFunctions(state: State) { return useData<FunctionsData>("functions", [["file", state.file], ...state.filter()]); }

export function FunctionTable({ state, narrow, onMatches }: { state: State; narrow?: boolean; onMatches?: (text: string) => void }) {
  const loaded = useFunctions(state), data = loaded.data;
  const search = state.get("search");
  const rows = useMemo(() => {
    if (!data) return [];
    const test = matcher(search), all = data.name.map((_, row) => row);
    return test ? all.filter((row) => test(data.name[row]!) || test(data.module[row]!)) : all;
  }, [data, search]);
  useEffect(() => {
    // Each sample ran in one function, so the shares of those that match add up.
    const own = data ? rows.reduce((sum, row) => sum + data.own[row]!, 0) : 0;
    onMatches?.(search && data ? `${count(rows.length)} ${rows.length === 1 ? "function" : "functions"}, self ${percent(own, data.weight)}` : "");
  }, [data, rows]);
  if (!data) return <Wait of={loaded} />;
  if (!data.name.length) return <Nothing state={state} />;
  const columns: Column[] = [
    { id: "self", title: "Self", number: true, value: (row) => data.own[row]!, cell: (row) => percent(data.own[row]!, data.weight) },
    { id: "total", title: "Total", number: true, value: (row) => data.total[row]!, cell: (row) => percent(data.total[row]!, data.weight) },
    ...(narrow ? [] : [
      { id: "samples", title: "Self, samples", number: true, value: (row: number) => data.own[row]!, cell: (row: number) => count(data.own[row]!) },
      { id: "samples-total", title: "Total, samples", number: true, value: (row: number) => data.total[row]!, cell: (row: number) => count(data.total[row]!) },
    ]),
    { id: "function", title: "Function", wide: true, value: (row) => data.name[row]!, cell: (row) => <span title={data.name[row]}>{data.name[row]}</span> },
    { id: "module", title: "File", value: (row) => data.module[row]!, cell: (row) => <span title={data.module[row]}>{file(data.module[row]!)}</span> },
    ...(narrow ? [] : [{ id: "place", title: "Source", value: (row: number) => data.place[row]!, cell: (row: number) => <span title={data.place[row]}>{file(data.place[row]!)}</span> }]),
    ...(narrow || !data.machine.length ? [] : [{ id: "machine", title: "Machine", value: (row: number) => data.machine[row]!, cell: (row: number) => <span title={data.machine[row]}>{data.machine[row]}</span> }]),
  ];
  return <Table id="functions" label="Functions" rows={rows} columns={columns} sort={state.get("sort", "self")} share={(row) => data.own[row]! / (data.weight || 1)}
    onSort={(sort) => change({ sort })} onPick={(row) => pickFunction(data.name[row]!, data.module[row]!)} />;
}

export const pickFunction = (name: string, module: string) => change({ view: "sandwich", function: name, in: module || null, focus: null });

export function Sandwich({ state, onMatches }: { state: State; onMatches: (text: string) => void }) {
  return (
    <div class="sandwich">
      <FunctionTable state={state} narrow onMatches={onMatches} />
      {state.get("function") ? <Layers state={state} /> : <p class="wait">Choose a function: its callers and what it calls appear here.</p>}
    </div>
  );
}

function Layers({ state }: { state: State }) {
  const loaded = useData<SandwichData>("sandwich", [["file", state.file], ["function", state.get("function")], ["in", state.get("in")], ...state.filter()]);
  if (!loaded.data) return <Wait of={loaded} />;
  const { callers, callees, weight } = loaded.data, part = { search: state.get("search"), focus: 0, unit: "samples", whole: weight, onPick: pickFunction };
  return (
    <div class="layers">
      <h2>{state.get("function")} <small>{percent(callees.total[0] ?? 0, weight)} {among(state.hasFilter)}; a click moves on to another function</small></h2>
      <h3>Callers, the nearest at the bottom</h3>
      <Flame key="callers" {...part} data={callers} flip label="Callers" onFocus={(box) => pickBox(callers, box)} />
      <h3>What it calls</h3>
      <Flame key="callees" {...part} data={callees} flip={false} label="Callees" onFocus={(box) => pickBox(callees, box)} />
    </div>
  );
}

function pickBox(data: SandwichData["callers"], box: number): void {
  if (box > 0) pickFunction(data.name[data.function[box]!]!, data.module[data.function[box]!]!);
}
