// What the sidecars saw, and which services there are; asked for again while it is looked at.

import { get } from "./api.js";
import { live } from "./live.js";

const PERIOD_MS = 5000;

/** Edges by pair, with all services. */
export async function seen(sinceSeconds, query, signal) {
  const [edges, services] = await Promise.all([
    get("/v1/edges", { since_s: sinceSeconds, by: "pair", ...query }, signal),
    get("/v1/services", {}, signal).catch(notAllowed),
  ]);
  return { edges: edges.edges, leftOut: edges.left_out ?? 0, services };
}

/** A token may see edges and no services. */
function notAllowed(error) {
  if (error.status === 403) return [];
  throw error;
}

/** Calls `load` now, every few seconds while the page is seen, and after every change, until the view is left. */
export function keepFresh(load, signal, period = PERIOD_MS) {
  let isRunning = false;
  let timer;
  const run = async () => {
    clearTimeout(timer);
    if (isRunning || signal.aborted) return;
    isRunning = true;
    try {
      // What lies under a dialog does not change.
      if (!document.hidden && !document.querySelector("dialog[open]")) await load();
    } finally {
      isRunning = false;
      clearTimeout(timer);
      if (!signal.aborted) timer = setTimeout(run, period);
    }
  };
  live.addEventListener("change", run, { signal });
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return run;
}

/** A row as a question to the evaluator. */
export function asked(row) {
  const { source, destination, port, method, shape, sample, verdict } = row;
  return { source, destination, port, method, shape, path: sample ?? (method ? shape : undefined), verdict };
}
