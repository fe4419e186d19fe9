// Who looks: a token, kept in a variable of the page and gone with it.

import { Failure, cure, get, useToken } from "../api.js";
import { button, field, h, replace } from "../dom.js";

/** Asks for a token until one is taken; then `enter` is called. `why` says why it asks again. */
export function askForToken(root, enter, why) {
  const token = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, name: "token" });
  const outcome = h("div", { role: "alert" });
  const tell = (failed) =>
    replace(outcome, h("div", { class: "failed" }, h("p", {}, failed.message), h("p", { class: "quiet" }, cure(failed))));
  const attempt = async (text) => {
    useToken(text);
    try {
      await known();
      enter();
    } catch (error) {
      useToken("");
      if (!(error instanceof Failure)) throw error;
      tell(error);
      token.focus();
    }
  };
  const submit = (event) => {
    event.preventDefault();
    attempt(token.value);
  };
  const form = h(
    "form",
    { class: "stack", on: { submit } },
    field("Token", token, "kept in this page alone, and forgotten when it is closed or loaded again"),
    h(
      "div",
      { class: "row" },
      h("button", { type: "submit", class: "primary" }, "Log in"),
      button("Look without a token", () => attempt("")),
    ),
    outcome,
  );
  replace(
    root,
    h(
      "section",
      { class: "login" },
      h("h1", { tabindex: -1 }, "Postern"),
      h("p", {}, "The control plane of this mesh asks who you are."),
      form,
      help(),
    ),
  );
  if (why) tell(why);
  token.focus();
}

/** A token that is known and may do little is taken: each view says what it lacks. */
async function known() {
  try {
    await get("/v1/intentions");
  } catch (error) {
    if (error.status === 403) return;
    throw error;
  }
}

function help() {
  return h(
    "details",
    {},
    h("summary", {}, "Where is a token?"),
    h(
      "p",
      {},
      "The operator's is in the file ",
      h("code", {}, "operator.token"),
      " of the control plane's data directory. One that may do less:",
    ),
    h(
      "pre",
      { tabindex: 0 },
      'meshctl acl policy set look --rules \'operator = "read" service_prefix "" { policy = "read" intentions = "read" } key_prefix "" { policy = "read" }\'\nmeshctl acl token create --policy look',
    ),
  );
}
