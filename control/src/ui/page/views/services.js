// Every service, and how it is.

import { Failure, get } from "../api.js";
import { field, h, link as linkTo, replace } from "../dom.js";
import { plural } from "../format.js";
import { HEALTH_TEXT } from "../graph/draw.js";
import { healthOf } from "../graph/model.js";
import { failed, health, nothing, table, title } from "../parts.js";
import { address } from "../router.js";

export const name = "Services";

const ORDER = ["critical", "partly", "unknown", "healthy"];

const COLUMNS = [
  { name: "Service", of: (one) => one.name, cell: (one) => linkTo(address("service", [one.name]), one.name) },
  {
    name: "Health",
    of: (one) => ORDER.indexOf(healthOf(one)),
    cell: (one) => health(healthOf(one), HEALTH_TEXT[healthOf(one)]),
  },
  { name: "Instances", number: true, of: (one) => one.instances, cell: (one) => String(one.instances) },
  { name: "Healthy", number: true, of: (one) => one.healthy, cell: (one) => String(one.healthy) },
  { name: "Connected", number: true, of: (one) => one.connected, cell: (one) => String(one.connected) },
  {
    name: "Without sidecar",
    number: true,
    of: (one) => one.without_sidecar ?? 0,
    cell: (one) => String(one.without_sidecar ?? 0),
  },
  { name: "Protocol", of: (one) => one.protocol ?? "", cell: (one) => one.protocol ?? "–" },
];

export async function show({ root, signal }) {
  const list = h("div");
  const note = h("p", { class: "quiet", role: "status" });
  const filter = h("input", {
    type: "search",
    placeholder: "part of a name",
    spellcheck: "false",
    autocomplete: "off",
    on: { input: () => fill() },
  });
  let services = [];
  const fill = () => {
    const words = filter.value.toLowerCase();
    const kept = services.filter((one) => one.name.includes(words));
    note.textContent = plural(kept.length, "service");
    replace(
      list,
      kept.length
        ? table("Services", COLUMNS, kept, { sortBy: { column: 0 } })
        : nothing(
            "No service is registered under such a name. ",
            h("code", {}, "meshctl run --service NAME -- COMMAND"),
            " starts one with its sidecar.",
          ),
    );
  };
  replace(root, title("Services"), h("div", { class: "row tools" }, field("Filter", filter)), note, list);
  try {
    services = await get("/v1/services", {}, signal);
    fill();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    replace(list, failed(error));
  }
}
