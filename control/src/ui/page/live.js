// What happens now: `GET /v1/live`, read by fetch, since EventSource cannot send the credential.

import { credential } from "./api.js";

const KEPT = 500;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

/** One stream for the whole page. Its events: `decision`, `change`, `state` (open, waiting, refused). */
class Live extends EventTarget {
  decisions = [];
  denials = 0;
  state = "waiting";
  problem = "";

  /** Starts, or starts again with other verdicts. */
  start(verdicts = ["deny", "audit", "failed"]) {
    this.stop();
    this.verdicts = verdicts;
    this.ending = new AbortController();
    this.run(this.ending.signal);
  }

  stop() {
    this.ending?.abort();
  }

  async run(signal) {
    let pause = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      try {
        const query = `what=decisions,changes&verdict=${this.verdicts.join(",")}`;
        const response = await fetch(`/v1/live?${query}`, {
          headers: credential(),
          signal,
          credentials: "omit",
          cache: "no-store",
        });
        if (response.status === 401 || response.status === 403 || response.status === 404) {
          const text = await response.text();
          this.become("refused", text);
          return;
        }
        if (response.ok) {
          this.become("open");
          pause = FIRST_PAUSE_MS;
          await this.read(response.body, signal);
        }
      } catch {
        // Told below: the stream is open or it is not.
      }
      if (signal.aborted) return;
      this.become("waiting");
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      // What was missed is not told again.
      if (!signal.aborted) this.dispatchEvent(new CustomEvent("change", { detail: {} }));
    }
  }

  async read(body, signal) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const events = new EventReader((name, data) => this.take(name, data));
    while (!signal.aborted) {
      const { done, value } = await reader.read();
      if (done) return;
      events.push(value);
    }
  }

  take(name, data) {
    if (name === "decision") {
      this.decisions.unshift(data);
      this.decisions.length = Math.min(this.decisions.length, KEPT);
      if (data.verdict === "deny") this.denials += data.count ?? 1;
    }
    if (name === "lagged") this.dispatchEvent(new CustomEvent("change", { detail: {} }));
    this.dispatchEvent(new CustomEvent(name, { detail: data }));
  }

  become(state, problem = "") {
    this.state = state;
    this.problem = problem;
    this.dispatchEvent(new CustomEvent("state"));
  }
}

/** Server-sent events out of pieces of text. */
export class EventReader {
  constructor(take) {
    this.take = take;
    this.rest = "";
  }

  push(text) {
    this.rest += text;
    const blocks = this.rest.split(/\r?\n\r?\n/);
    this.rest = blocks.pop();
    for (const block of blocks) this.block(block);
  }

  block(block) {
    let name = "message";
    const data = [];
    for (const line of block.split(/\r?\n/)) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    if (!data.length && name !== "lagged") return;
    try {
      this.take(name, data.length ? JSON.parse(data.join("\n")) : {});
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
  }
}

export const live = new Live();
