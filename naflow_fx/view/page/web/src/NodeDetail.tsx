/** What the picked node of the graph is, and the way to those that belong to it. */
import type { Graph, GraphNode } from "./data";
import { inverseOf, reveal } from "./fold";
import { entry, goToSite, layer, picked } from "./state";
import { memory, number } from "./words";

export function NodeDetail({ shown }: { shown: Graph }) {
  const chosen = shown.nodes.find((one) => one.id === picked.value);
  const node = chosen ?? inverseOf(shown, layer.value.name);
  if (!node) {
    return (
      <aside class="node" aria-label="Node">
        <p class="hint">Click a box to see its operator, what it reads, and how it is inverted.</p>
      </aside>
    );
  }
  const measured = entry.value.layers.find((l) => l.name === node.site);
  const inverse = node.kind === "inverse";
  const known = (value: number | null | undefined) =>
    inverse && value != null ? number(value) : null;
  return (
    <aside class="node" aria-label={`Node ${node.id}`} aria-live="polite">
      <p class={`kind ${node.kind}`}>
        <i class={`mark ${node.kind}`} /> {node.kind}
      </p>
      <h3>
        <code>{node.id}</code>
      </h3>
      {node.doc && <p class="doc">{node.doc}</p>}
      <dl class="facts">
        <Fact name="Call site" value={node.site} />
        <Fact name="Operator" value={node.operator} />
        <Fact name="Inverts" value={node.operators?.length === 1 ? node.operators[0] : null} />
        <Fact name="Region" value={node.region} />
        <Fact name="How" value={node.how} />
        <Fact name="Equation" value={node.equation} />
        <Fact name="Shape" value={shape(node.shape)} />
        <Fact name="Steps" value={node.steps} />
        <Fact name="Damping" value={node.damping} />
        <Fact name="σ max" value={known(measured?.sigma_max ?? node.sigma_max)} />
        <Fact name="Residual" value={known(measured?.residual ?? node.residual)} />
        <Fact name="Norm ratio" value={known(measured?.norm_ratio ?? node.norm_ratio)} />
      </dl>
      <Captures node={node} />
      <Ways shown={shown} node={node} />
    </aside>
  );
}

function Fact({ name, value }: { name: string; value: string | number | null | undefined }) {
  if (value === null || value === undefined || value === "") return null;
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Captures({ node }: { node: GraphNode }) {
  if (!node.captures?.length) return null;
  const reads = node.kind === "inverse" || node.kind === "importance";
  return (
    <section class="captures">
      <h4>{reads ? "Reads" : "Captured"}</h4>
      <ul>
        {node.captures.map((one) => (
          <li key={one.name}>
            <code>{one.name}</code>
            <small>
              {one.dtype}, {shape(one.shape)},{" "}
              {one.bytes_per_image ? `${memory(one.bytes_per_image)} an image` : "constant"}
            </small>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Buttons to the layer, and to the other nodes of the same call site. */
function Ways({ shown, node }: { shown: Graph; node: GraphNode }) {
  const kin = shown.nodes.filter((n) => n.id !== node.id && n.name === node.name);
  const site = node.site && entry.value.layers.some((l) => l.name === node.site) ? node.site : null;
  const toLayer = () => {
    goToSite(site!);
    document.querySelector(".stage")?.scrollIntoView({ block: "start" });
  };
  return (
    <p class="ways">
      {site && <button class="link" onClick={toLayer}>Show its map</button>}
      {kin.map((other) => (
        <button class="link" key={other.id} onClick={() => reveal(shown, other)}>
          {other.kind}
        </button>
      ))}
    </p>
  );
}

/** A shape as text, N for the batch. */
function shape(value: unknown): string | null {
  if (!Array.isArray(value)) return typeof value === "string" ? value : null;
  return value.map((length) => (length === -1 ? "N" : length)).join(" × ");
}
