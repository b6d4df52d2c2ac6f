/** Keys of the whole page; fields that take the same keys come first. */
import { report } from "./data";
import { inverseOf, reveal } from "./fold";
import {
  alpha, box, colormap, entry, focus, focusOn, go, graph, help, layer, leap, play, shared, step,
} from "./state";

const next = <T>(all: T[], now: T): T => all[(all.indexOf(now) + 1) % all.length];

const ACTIONS: Record<string, (shift: boolean) => void> = {
  " ": play,
  ArrowLeft: (shift) => (shift ? leap(-1) : go(step.value - 1)),
  ArrowRight: (shift) => (shift ? leap(1) : go(step.value + 1)),
  Home: () => go(0),
  End: () => go(entry.value.layers.length - 1),
  "[": () => (alpha.value = Math.max(0, alpha.value - 0.1)),
  "]": () => (alpha.value = Math.min(1, alpha.value + 0.1)),
  c: () => (colormap.value = next(Object.keys(report.colormaps), colormap.value)),
  s: () => (shared.value = !shared.value),
  n: () => focusOn((focus.value + 1) % report.entries.length),
  i: () => {
    const node = graph.value && inverseOf(graph.value, layer.value.name);
    if (node) reveal(graph.value!, node);
  },
  Escape: () => (box.value = null),
  "?": () => (help.value = true),
};

export function listen(): void {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return; // help.value follows its closing later
    const action = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || taken(event)) return;
    event.preventDefault();
    action(event.shiftKey);
  });
}

/** Whether the field with the focus has a use of its own for the key. */
function taken(event: KeyboardEvent): boolean {
  const at = event.target as HTMLElement;
  if (at.matches("select, textarea, input:not([type=range])")) return true;
  if (at.matches("input[type=range]")) return event.key.startsWith("Arrow") && !event.shiftKey;
  // a dialog that has just closed may still have the focus
  return event.key === " " && at.matches("button, summary") && at.checkVisibility();
}
