// The HTTP API of the control plane that served this page.

// Here and nowhere else: it goes with the page.
let token = "";

/** Told when a credential is refused. */
export const refused = new EventTarget();

/** Why a call failed, and what to do. */
export class Failure extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

export function useToken(text) {
  token = text.trim();
}

/** What the page sends with every call. */
export function credential() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** A path of segments; each is written so that it stays one. */
export function path(...segments) {
  return `/v1/${segments.map(encodeURIComponent).join("/")}`;
}

/** A call. `query` without its undefined members; `body` as JSON, text and bytes as they are. The answer's JSON. */
export async function call(method, to, { query, body, signal } = {}) {
  const response = await send(method, to, { query, body, signal });
  const text = await response.text();
  return text === "" ? null : JSON.parse(text);
}

export const get = (to, query, signal) => call("GET", to, { query, signal });

/** A call whose answer is read by the caller. */
export async function send(method, to, { query, body, signal } = {}) {
  const headers = credential();
  let content = body;
  if (body !== undefined && typeof body !== "string" && !(body instanceof Uint8Array)) {
    content = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(to + queryText(query), {
      method,
      headers,
      body: content,
      signal,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(
      0,
      "The control plane does not answer.",
      "See whether `meshctl control` runs; the page tries again by itself where it shows what is live.",
    );
  }
  if (!response.ok) throw await failure(response);
  return response;
}

function queryText(query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  // What is asked for by its name alone has no value.
  const texts = given.map(([name, value]) => (value === true ? name : `${name}=${encodeURIComponent(value)}`));
  return texts.length ? `?${texts.join("&")}` : "";
}

async function failure(response) {
  const text = await response.text();
  const { message, hint } = said(text, response.status);
  const failed = new Failure(response.status, message, hint);
  // Consul's routes say 403 where nothing was shown.
  const nobody = response.status === 401 || (response.status === 403 && text.trim() === "ACL not found");
  if (nobody) refused.dispatchEvent(new CustomEvent("refused", { detail: failed }));
  return failed;
}

function said(text, status) {
  try {
    const body = JSON.parse(text);
    if (typeof body.error === "string") return { message: body.error, hint: body.hint };
  } catch {
    // Consul's routes answer in plain text.
  }
  return { message: text.trim().slice(0, 500) || `The control plane answered ${status}.` };
}

/** What a 401 or 403 needs, in commands. */
export function cure(failed) {
  if (failed.status === 401) {
    return (
      "The operator token is in the file operator.token of the control plane's data directory; " +
      "`meshctl acl token create --policy NAME` makes one that may do less."
    );
  }
  if (failed.status === 403) {
    return (
      "This token may not do that. `meshctl acl policy set NAME --rules '…'` gives its policy more, " +
      "`meshctl acl token create --policy NAME` makes a token of it."
    );
  }
  return failed.hint ?? "";
}
