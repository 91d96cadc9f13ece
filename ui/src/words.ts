// Numbers as people read them.
export const count = (value: number) => Math.round(value).toLocaleString("en-US");
export const samples = (value: number) => `${count(value)} ${value === 1 ? "sample" : "samples"}`;
// What is rounded never becomes nothing or everything: one cut stack of a million is not 0 %, and the others are not 100 %.
export function percent(part: number, whole: number, digits = 2): string {
  if (!whole) return "-";
  const share = (100 * part) / whole, step = 10 ** -digits;
  if (share > 0 && share < step / 2) return `< ${step.toFixed(digits)} %`;
  if (share < 100 && share >= 100 - step / 2) return `> ${(100 - step).toFixed(digits)} %`;
  return `${share.toFixed(digits)} %`;
}
// Of what a share is a share: the page counts only what passes the filters.
export const among = (filtered: boolean) => (filtered ? "of the samples that pass the filters" : "of all samples");
export const points = (share: number) => `${share >= 0 ? "+" : "\u2212"}${Math.abs(100 * share).toFixed(2)}`;
export const file = (path: string) => path.replace(/\/+$/, "").split("/").pop() || path;

// What the browser's user typed: text, or /a regular expression/; null for nothing, undefined for one that is wrong.
export function matcher(text: string): ((name: string) => boolean) | null | undefined {
  if (!text) return null;
  if (text.length > 2 && text.startsWith("/") && text.endsWith("/")) {
    try { const expression = new RegExp(text.slice(1, -1), "i"); return (name) => expression.test(name); } catch { return undefined; }
  }
  const wanted = text.toLowerCase();
  return (name) => name.toLowerCase().includes(wanted);
}

// A value of a recording as a pattern that fits only itself.
export const exactly = (text: string) => text.replace(/[*?[]/g, (letter) => `[${letter}]`);
export const unpattern = (text: string) => text.replace(/\[([*?[])\]/g, "$1");
