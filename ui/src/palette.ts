// Colours that people with every kind of colour vision tell apart (after Okabe and Ito); what matters has a mark beside its colour.
export const KINDS: Record<string, { label: string; light: string; dark: string }> = {
  program: { label: "program", light: "#f0b041", dark: "#a8741a" },
  library: { label: "library", light: "#7cc4ec", dark: "#2f7aa6" },
  kernel: { label: "kernel", light: "#5cc0a0", dark: "#238250" },
  vdso: { label: "vDSO", light: "#f3e96b", dark: "#686824" },
  generated: { label: "generated code", light: "#da8ac2", dark: "#7d2c73" },
  unknown: { label: "unknown place", light: "#c8c8c8", dark: "#565656" },
  group: { label: "process", light: "#eaeaea", dark: "#30343b" },
  mark: { label: "not whole, and why", light: "#f4b08c", dark: "#9a4a14" },
};
export const MATCH = { light: "#e36bf2", dark: "#c44bd6" };
export const HATCH = "#d55e00";

export const SERIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#555555", "#b8b8b8"];
export const VERDICTS: Record<string, string> = {
  reliable: "#009e73", unreliable: "#d55e00", none: "#9a9a9a", whole: "#009e73", cut: "#d55e00", unknown: "#cc79a7",
};
// Series that mean trouble are hatched as well.
export const HATCHED = new Set(["unreliable", "cut"]);

// Less is blue with a minus, more is orange with a plus.
export function changeColour(change: number, dark: boolean): string {
  const strength = Math.min(1, Math.sqrt(Math.abs(change) * 8));
  if (Math.abs(change) < 0.0005) return dark ? "#30343b" : "#e4e4e4";
  const [base, end] = change > 0 ? (dark ? [[74, 58, 50], [200, 90, 10]] : [[246, 226, 210], [230, 120, 30]]) : (dark ? [[48, 60, 74], [20, 100, 170]] : [[214, 228, 242], [70, 150, 215]]);
  return `rgb(${base!.map((from, index) => Math.round(from + (end![index]! - from) * strength)).join(",")})`;
}
