/** Play, step, scrub; the ruler of blocks under the scrubber; opacity, colours, scale. */
import { report } from "./data";
import { label } from "./Curves";
import {
  alpha, colormap, entry, go, groups, layer, leap, photoOf, play, playing, reference, shared, speed,
  step, type Group,
} from "./state";
import { short } from "./words";

export function Transport() {
  const last = entry.value.layers.length - 1;
  return (
    <section class="transport" aria-label="Layers">
      <div class="transport-row">
        <div class="buttons">
          <Step label="Previous block" icon="M5 4v16M19 4 8 12l11 8z" act={() => leap(-1)} />
          <Step label="Previous layer" icon="M17 4 6 12l11 8z" act={() => go(step.value - 1)} />
          <button class="play" aria-label={playing.value ? "Pause" : "Play"} onClick={play}>
            <Icon path={playing.value ? "M7 4h4v16H7zM13 4h4v16h-4z" : "M7 4l13 8-13 8z"} />
          </button>
          <Step label="Next layer" icon="M7 4l11 8-11 8z" act={() => go(step.value + 1)} />
          <Step label="Next block" icon="M5 4l11 8-11 8zM19 4v16" act={() => leap(1)} />
        </div>
        <p class="now" aria-live={playing.value ? "off" : "polite"}>
          <span class="count">
            {step.value + 1}
            <small> / {last + 1}</small>
          </span>
          <code class="site">
            <span class="of-block">{layer.value.block && `${layer.value.block}.`}</span>
            {short(layer.value.name)}
          </code>
        </p>
      </div>
      <input
        class="scrubber"
        type="range"
        min={0}
        max={last}
        value={step.value}
        aria-label="Layer"
        aria-valuetext={`${layer.value.name}, ${step.value + 1} of ${last + 1}`}
        onInput={(event) => go(Number(event.currentTarget.value))}
      />
      <Ruler />
    </section>
  );
}

function Step({ label, icon, act }: { label: string; icon: string; act: () => void }) {
  return (
    <button class="step" aria-label={label} title={label} onClick={act}>
      <Icon path={icon} />
    </button>
  );
}

export function Icon({ path }: { path: string }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

/** The stages of the network, as wide as they are deep; each is a button to its first layer. */
function Ruler() {
  return (
    <div class="ruler" role="group" aria-label="Blocks">
      {groups(entry.value).map((group) => (
        <button
          key={group.start}
          class="block"
          style={{ flexGrow: String(group.count) }}
          aria-current={inside(group)}
          aria-label={`${full(group)}, ${group.count} layers`}
          title={full(group)}
          onClick={() => go(group.start)}
        >
          {brief(group)}
        </button>
      ))}
    </div>
  );
}

const inside = (group: Group): boolean =>
  step.value >= group.start && step.value < group.start + group.count;

/** The group's name; layers outside of any block go by the first one's. */
const full = (group: Group): string => group.name || entry.value.layers[group.start].name;

/** The last part of the name, since there is little room: 3 for blocks.3, head for head_conv. */
const brief = (group: Group): string => short(full(group)).split("_")[0];

/** Entries that have a neighbour of the same photo, from which they can be taken. */
const comparable = report.entries
  .map((_, i) => i)
  .filter((i) => report.entries.some((_, j) => j !== i && photoOf(i) === photoOf(j)));

export function Look() {
  return (
    <section class="look" aria-label="How maps are drawn">
      <label>
        <span>Opacity</span>
        <input
          type="range"
          min={0}
          max={1}
          step={0.05}
          value={alpha.value}
          aria-valuetext={`${Math.round(100 * alpha.value)} %`}
          onInput={(event) => (alpha.value = Number(event.currentTarget.value))}
        />
      </label>
      <label>
        <span>Colours</span>
        <select
          value={colormap.value}
          onInput={(event) => (colormap.value = event.currentTarget.value)}
        >
          {Object.keys(report.colormaps).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <label>
        <span>Scale</span>
        <select
          value={shared.value ? "all" : "each"}
          onInput={(event) => (shared.value = event.currentTarget.value === "all")}
        >
          <option value="each">each layer by itself</option>
          <option value="all">all layers alike</option>
        </select>
      </label>
      {comparable.length > 0 && (
        <label>
          <span>Minus</span>
          <select
            value={String(reference.value ?? "")}
            onInput={(event) => {
              const text = event.currentTarget.value;
              reference.value = text === "" ? null : Number(text);
            }}
          >
            <option value="">nothing</option>
            {comparable.map((i) => (
              <option key={i} value={i}>
                {label(report.entries[i])}
              </option>
            ))}
          </select>
        </label>
      )}
      <label>
        <span>Speed</span>
        <select
          value={speed.value}
          onInput={(event) => (speed.value = Number(event.currentTarget.value))}
        >
          {[1, 2, 4, 8, 16].map((rate) => (
            <option key={rate} value={rate}>
              {rate} layers a second
            </option>
          ))}
        </select>
      </label>
    </section>
  );
}

