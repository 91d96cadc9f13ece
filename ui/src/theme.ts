// Dark or light: the system's choice until the user makes one, which this browser keeps.
const listeners = new Set<() => void>();
const root = document.documentElement;

export const isDark = () => root.classList.contains("dark");
export function onTheme(tell: () => void): () => void { listeners.add(tell); return () => listeners.delete(tell); }
export function toggleTheme(): void {
  root.classList.toggle("dark");
  try { localStorage.setItem("theme", isDark() ? "dark" : "light"); } catch { /* not kept, then */ }
  for (const tell of listeners) tell();
}

let kept: string | null = null;
try { kept = localStorage.getItem("theme"); } catch { /* none is kept */ }
if (kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches) root.classList.add("dark");
