// Keys and values. A value is saved only if it is still the one that was read.

import { Failure, call, get, send } from "../api.js";
import { button, field, h, link as linkTo, replace } from "../dom.js";
import { bytes } from "../format.js";
import { dialog, facts, failed, nothing, table, title } from "../parts.js";
import { address, go } from "../router.js";

export const name = "Keys";

/** The whole key is one segment: a browser would take `..` between slashes for the way up, and ask for another key. */
function route(key) {
  if (key === "." || key === "..") throw new Failure(400, `A browser cannot ask for the key ${key}.`, "`meshctl kv get` can.");
  return `/v1/kv/${encodeURIComponent(key)}`;
}

const toKey = (key) => address("kv", key.split("/"));

export function show({ root, route: { rest }, signal }) {
  const key = rest.join("/").replace(/^\/+/, "");
  const content = h("div");
  replace(root, title("Keys"), crumbs(key), content);
  return guarded(content, () => (key === "" || key.endsWith("/") ? list(content, key, signal) : edit(content, key, signal)));
}

async function guarded(content, act) {
  try {
    await act();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    replace(content, failed(error));
  }
}

function crumbs(key) {
  const parts = key.split("/").filter((part, index, all) => part !== "" || index < all.length - 1);
  const isTree = key === "" || key.endsWith("/");
  const links = parts.map((part, index) => {
    const isLast = index === parts.length - 1;
    const upTo = `${parts.slice(0, index + 1).join("/")}${isLast && !isTree ? "" : "/"}`;
    return h("li", {}, h("a", { href: `#${toKey(upTo)}`, "aria-current": isLast ? "page" : null }, part || "(empty)"));
  });
  return h(
    "nav",
    { "aria-label": "Where in the keys" },
    h("ol", { class: "crumbs" }, h("li", {}, linkTo("/kv", "all keys")), links),
  );
}

async function list(content, prefix, signal) {
  let keys = [];
  try {
    keys = (await get(route(prefix), { keys: true, separator: "/" }, signal)) ?? [];
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  const name = h("input", { type: "text", required: true, value: prefix, autocomplete: "off", spellcheck: "false" });
  const add = h(
    "form",
    {
      class: "row",
      on: {
        submit: (event) => {
          event.preventDefault();
          go(toKey(name.value.trim().replace(/^\/+/, "")));
        },
      },
    },
    field("New key", name),
    h("button", { type: "submit" }, "Add"),
  );
  const rows = keys.filter((key) => key !== prefix);
  const columns = [
    { name: "Key", of: (key) => key, cell: (key) => h("a", { href: `#${toKey(key)}` }, key.slice(prefix.length)) },
    { name: "Kind", of: (key) => (key.endsWith("/") ? "folder" : "value") },
  ];
  replace(content, rows.length ? table("Keys", columns, rows) : nothing("No key begins so."), add);
}

/** One key as it is now, or undefined. */
async function read(key, signal) {
  try {
    return (await get(route(key), {}, signal))[0];
  } catch (error) {
    if (error.status === 404 && error.message.startsWith("The control plane answered")) return undefined;
    throw error;
  }
}

async function edit(content, key, signal) {
  const entry = await read(key, signal);
  const value = textOf(entry?.Value);
  const text = h("textarea", { rows: 14, spellcheck: "false", value: value.text, readonly: value.isBinary });
  const flags = h("input", { type: "number", min: 0, step: 1, value: String(entry?.Flags ?? 0) });
  const outcome = h("div", { role: "status" });
  const again = () => guarded(content, () => edit(content, key, signal));
  const save = button(
    "Save",
    () =>
      guarded(outcome, async () => {
        const done = await (
          await send("PUT", route(key), { query: { cas: entry?.ModifyIndex ?? 0, flags: flags.value || 0 }, body: text.value })
        ).json();
        if (done) {
          await again();
          replace(content.querySelector("[role=status]"), h("p", { class: "done" }, "Saved."));
        } else await conflict(outcome, key, text, again);
      }),
    { class: "primary" },
  );
  const remove = button("Delete…", () =>
    guarded(outcome, async () => {
      if (!(await confirmed(`Delete ${key}`))) return;
      const done = await call("DELETE", route(key), { query: { cas: entry.ModifyIndex } });
      if (done) go(toKey(key.slice(0, key.lastIndexOf("/") + 1)));
      else await conflict(outcome, key, text, again);
    }),
  );
  replace(
    content,
    entry
      ? facts(
          ["Changed at revision", entry.ModifyIndex],
          ["Made at revision", entry.CreateIndex],
          ["Size", bytes(value.size)],
          ["Locked", entry.Session ? `by session ${entry.Session}` : ""],
          ["Lock count", entry.LockIndex || ""],
        )
      : nothing("This key is not there yet; saving makes it."),
    value.isBinary
      ? h("p", { class: "warns" }, "The value is not text. It is shown as hexadecimal and cannot be changed here.")
      : null,
    entry?.Session ? h("p", { class: "warns" }, "A session holds the lock of this key; saving does not ask it.") : null,
    field("Value", text),
    field("Flags", flags, "a number that programs give a meaning"),
    h("div", { class: "row" }, value.isBinary ? null : save, entry ? remove : null),
    outcome,
  );
}

/** Somebody else was faster: both values are shown, and nothing is lost. */
async function conflict(outcome, key, text, again) {
  const now = await read(key);
  replace(
    outcome,
    h(
      "p",
      { class: "failed", role: "alert" },
      now
        ? `This key was changed at revision ${now.ModifyIndex}, after it was read here. Nothing was saved.`
        : "This key was deleted after it was read here. Nothing was saved.",
    ),
    now ? [h("h2", {}, "What it says now"), h("pre", { tabindex: 0 }, textOf(now.Value).text)] : null,
    h(
      "div",
      { class: "row" },
      button("Take what it says now", again),
      button("Keep mine, to save over it", async () => {
        const mine = text.value;
        await again();
        document.querySelector("#main textarea").value = mine;
      }),
    ),
  );
}

function confirmed(name) {
  return dialog(name, (close) =>
    h(
      "div",
      {},
      h("p", {}, "It is gone from the store then."),
      h(
        "div",
        { class: "row" },
        button("Delete", () => close(true), { class: "primary" }),
        button("Keep it", () => close(false)),
      ),
    ),
  );
}

/** Base64 to text, or to hexadecimal where it is none. */
function textOf(base64) {
  const raw = Uint8Array.from(atob(base64 ?? ""), (character) => character.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
    // A text field would change these ends of lines.
    if (!text.includes("\r") && !text.includes("\0")) return { text, isBinary: false, size: raw.length };
  } catch {
    // It is shown below.
  }
  const hex = Array.from(raw.slice(0, 4096), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return { text: hex, isBinary: true, size: raw.length };
}
