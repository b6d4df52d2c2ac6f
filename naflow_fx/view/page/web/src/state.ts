/** What the user has chosen; every part of the page follows these signals. */
import { batch, computed, effect, signal } from "@preact/signals";
import type { Box } from "./box";
import { type Entry, type Layer, report } from "./data";

/** Stands in on a page without flows: no layer that anything could be linked with. */
const NONE: Entry = {
  photo: 0, model: 0, explained: "", score: null, top: [], options: "",
  layers: [{
    name: "", block: "", shape: [1, 1], max: null, map: "",
    spread: null, scatter: null, agreement: null, residual: null, norm_ratio: null, sigma_max: null, abandoned: null,
  }],
};

export const focus = signal(0); // the entry that details, curves' marker and graph belong to
export const step = signal(Math.max(0, (report.entries[0]?.layers.length ?? 0) - 1)); // its layer
export const playing = signal(false);
export const speed = signal(4); // layers a second
export const alpha = signal(report.alpha);
export const colormap = signal(report.colormap);
export const shared = signal(false); // one scale for all layers of an entry, or one a map
export const reference = signal<number | null>(null); // entry that is taken from its neighbours
export const box = signal<Box | null>(null);
export const help = signal(false);
export const theme = signal<"auto" | "light" | "dark">("auto");
export const picked = signal<string | null>(null); // node of the graph
export const unfolded = signal<ReadonlySet<string>>(new Set(shells())); // blocks of the graph

export const entry = computed<Entry>(() => report.entries[focus.value] ?? NONE);
export const layer = computed<Layer>(() => entry.value.layers[step.value]);
export const graph = computed(() => report.models[entry.value.model].graph);
export const several = report.entries.length > 1;

const places = report.entries.map((one) => new Map(one.layers.map((l, i) => [l.name, i])));

/** Blocks that hold most of a network and are all made of blocks: seen unfolded from the start. */
export function shells(model = report.entries[0]?.model ?? 0): string[] {
  const { blocks = [], nodes = [] } = report.models[model].graph ?? {};
  const within = (id: string) => nodes.filter((n) => (n.block ?? "").startsWith(`${id}.`)).length;
  return blocks.filter((b) => b.id && within(b.id) > nodes.length / 2).map((b) => b.id);
}

/** The layer of entry `index` that goes with the one shown: of its name, or as deep. */
export function layerOf(index: number): number {
  if (index === focus.value) return step.value;
  const named = places[index].get(layer.value.name);
  if (named !== undefined) return named;
  const depth = step.value / Math.max(1, entry.value.layers.length - 1);
  return Math.round(depth * (report.entries[index].layers.length - 1));
}

/** The entry that entry `index` is shown minus: another one of the same photo. */
export function lessOf(index: number): number | null {
  const at = reference.value;
  const same = at !== null && at !== index && photoOf(at) === photoOf(index);
  return same ? at : null;
}

export const photoOf = (index: number): string => report.photos[report.entries[index].photo].name;

/** Shows layer `to`, kept inside the network. */
export function go(to: number): void {
  step.value = Math.min(entry.value.layers.length - 1, Math.max(0, Math.round(to)));
}

/** Shows the layer of this name, if it is one of the entry's. */
export function goToSite(name: string): boolean {
  const place = places[focus.value]?.get(name);
  if (place !== undefined) step.value = place;
  return place !== undefined;
}

/** The first layer of the next (1) or previous (-1) top-level block. */
export function leap(direction: 1 | -1): void {
  const starts = groups(entry.value).map((group) => group.start);
  const next =
    direction > 0
      ? starts.find((start) => start > step.value)
      : starts.findLast((start) => start < step.value);
  if (next !== undefined) go(next);
}

/** Moves the focus to another entry, at the layer that it shows. */
export function focusOn(index: number): void {
  const to = layerOf(index);
  batch(() => {
    if (report.entries[index].model !== entry.value.model) {
      picked.value = null;
      unfolded.value = new Set(shells(report.entries[index].model));
    }
    focus.value = index;
    step.value = to;
  });
}

export interface Group {
  name: string;
  start: number;
  count: number;
}

/** Runs of layers whose names begin alike: stages of the network, for the ruler. */
export function groups(one: Entry): Group[] {
  const found: Group[] = [];
  one.layers.forEach((l, i) => {
    const name = stage(l);
    const last = found.at(-1);
    if (last?.name === name) last.count += 1;
    else found.push({ name, start: i, count: 1 });
  });
  return found;
}

/** The part of a layer's block that names its stage: layer1 of layer1.0, blocks.3 of blocks.3. */
function stage(l: Layer): string {
  const [first, second] = l.block.split(".");
  if (!first) return "";
  const many = second !== undefined && generic.has(first);
  return many ? `${first}.${second}` : first;
}

const generic = new Set(["blocks", "features", "layers", "stages", "encoder", "backbone", "body"]);

effect(() => {
  const name = layer.value.name; // what was picked stays picked while its layer is shown
  const node = graph.value?.nodes.find((one) => one.id === picked.peek());
  if (node?.site && node.site !== name) picked.value = null;
});

effect(() => {
  if (!playing.value) return;
  const timer = setInterval(() => {
    if (step.value >= entry.value.layers.length - 1) playing.value = false;
    else step.value += 1;
  }, 1000 / speed.value);
  return () => clearInterval(timer);
});

/** Plays from here, from the start if this is the end, or pauses. */
export function play(): void {
  if (!playing.value && step.value === entry.value.layers.length - 1) step.value = 0;
  playing.value = !playing.value;
}

const system = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);
system.addEventListener("change", () => (systemDark.value = system.matches));

export const dark = computed(() =>
  theme.value === "auto" ? systemDark.value : theme.value === "dark",
);

effect(() => {
  document.documentElement.dataset.theme = dark.value ? "dark" : "light";
});
