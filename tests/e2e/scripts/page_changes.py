"""Changes that a person makes on the page while `web` calls `api`, and what the control plane and the calls say of them then."""

import json
import urllib.error
import urllib.request
from urllib.parse import quote


class Outside:
    """What is to be seen without the page: the control plane, asked by the operator, and the calls."""

    def __init__(self, page, token, upstream):
        self.page, self.token, self.upstream = page, token, upstream

    def ask(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.page.origin + path, method=method, data=content, headers=headers)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def intentions(self):
        """Each as its pair and what it says."""
        return {(one["source"], one["destination"], "expires_at" in one): one for one in self.ask("GET", "/v1/intentions")["intentions"]}

    def default(self):
        return self.ask("GET", "/v1/intentions")["default"]

    def set(self, source, destination, verb):
        """What somebody else does meanwhile."""
        self.ask("PUT", f"/v1/intentions/{quote(source)}/{quote(destination)}", {"verb": verb})

    def status(self, method="GET", path="/v1/invoices/7"):
        request = urllib.request.Request(f"http://{self.upstream}{path}", method=method, headers={"Connection": "close"})
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def until_seen(self):
        """Sidecars tell what they saw every few seconds."""
        self.page.until("the calls were seen", lambda: self.ask("GET", "/v1/edges?since_s=3600")["edges"])

    def until_status(self, status, *call):
        self.page.until(f"{call or 'the call'} is answered {status}", lambda: self.status(*call) == status)


def do_it(page):
    """Confirms the plan that is shown, and leaves it."""
    page.press("Do it")
    page.until_text("dialog:last-of-type .done", "Done.")
    page.press("Close", "dialog:last-of-type .plan")


def suggest(page, token, upstream, axe):
    """What audit let through is made into intentions, and nothing else goes through then."""
    outside = Outside(page, token, upstream)
    outside.until_seen()
    page.log_in(token)
    page.go("/intentions", "Intentions")
    page.press("Suggest from what was seen…")
    page.press("Suggest")
    page.until_text("dialog table", "web -> api: allow")
    page.press("As a file")
    page.until_text("dialog pre", "source: web")
    page.check_faults(axe)
    page.choose("Down to", "methods and paths")
    page.until("what was asked before is gone", lambda: not page.find("dialog table"))
    page.press("Suggest")
    page.until_text("dialog table", "otherwise deny")
    page.press("Plan: only these, and deny by default")
    page.until_text("dialog .diff.removed", "default: audit")
    page.until_text("dialog .plan", "default: deny")
    page.check_faults(axe)
    page.fill("Reason, for the history", "only what was seen")
    do_it(page)
    page.until_text("#main table", "GET /v1/invoices/")
    assert outside.default() == "deny"
    (made,) = outside.intentions().values()
    assert (made["source"], made["destination"], made["reason"]) == ("web", "api", "only what was seen"), made
    outside.until_status(403, "POST")
    outside.until_status(403, "GET", "/elsewhere")
    assert outside.status() == 200
    page.check_nothing_left()


def for_a_time(page, token, upstream, axe):
    """The whole pair is allowed for an hour from the box that says why, and that is ended."""
    outside = Outside(page, token, upstream)
    outside.until_status(403)
    outside.until_seen()
    page.log_in(token)
    page.drawn()
    page.press("web → api")
    page.press("Why: web to api", ".panel")
    page.until_text("dialog .answer", "denied by default")
    page.check_faults(axe)
    page.press("Allow…")
    page.choose("How long", "for 1 hour")
    page.check_faults(axe)
    page.press("Show the plan")
    page.until_text("dialog:last-of-type .diff.added", "web -> api: allow")
    page.until_text("dialog:last-of-type .effects", "let through")
    do_it(page)
    page.until_text("dialog .answer", "allowed")
    page.until_text("dialog .answer", "until")
    page.press("Close")
    ((_, made),) = outside.intentions().items()
    assert "expires_at" in made, made
    outside.until_status(200)
    page.go("/intentions", "Intentions")
    page.until_text("#main table", "ends in 60 min")
    page.press("Delete web to api, temporary")
    page.until_text("dialog .diff.removed", "web -> api: allow, until")
    page.until_text("dialog .effects", "cut off")
    page.check_faults(axe)
    do_it(page)
    page.until_text("#main", "There is none yet")
    assert not outside.intentions()
    outside.until_status(403)
    page.check_nothing_left()


def one_request(page, token, upstream, axe):
    """One kind of request is allowed from a line of Live, and no other goes through."""
    outside = Outside(page, token, upstream)
    page.log_in(token)
    page.go("/live", "Live")
    page.until_text("#main tbody", "GET /v1/invoices/7")
    page.press("Why: web to api")
    page.until_text("dialog .answer", "denied by default")
    page.press("Allow…")
    page.press_choice("this request only")
    page.check_faults(axe)
    page.press("Show the plan")
    page.until_text("dialog:last-of-type .diff.added", "allow GET /v1/invoices/7; otherwise deny")
    do_it(page)
    page.until_text("dialog .answer", "allowed")
    page.until_text("dialog", "Path read as /v1/invoices/7")
    page.press("Close")
    outside.until_status(200)
    assert outside.status("POST") == 403
    assert outside.status("GET", "/v1/invoices/8") == 403
    page.check_nothing_left()


def default_policy(page, token, upstream, axe):
    """The default is changed with its plan, and what it lets through goes through; the way back is in the history."""
    outside = Outside(page, token, upstream)
    outside.until_status(403)
    outside.until_seen()
    page.log_in(token)
    page.go("/intentions", "Intentions")
    page.choose("Where no intention matches", "audit: allow, and tell what deny would refuse")
    page.press("Change…")
    page.until_text("dialog .diff.removed", "default: deny")
    page.until_text("dialog .diff.added", "default: audit")
    page.until_text("dialog .effects", "would be denied, let through by audit")
    assert outside.default() == "deny", "nothing is done before it is said"
    page.check_faults(axe)
    page.fill("Reason, for the history", "to look")
    do_it(page)
    assert outside.default() == "audit"
    outside.until_status(200)
    page.go("/history", "History")
    page.until_text("#main .changes li", "to look")
    made = page.text("#main .changes li:nth-child(1) h2").split()[1]
    page.press(f"Undo revision {made}")
    page.until_text("dialog .plan", "default: deny")
    page.until_text("dialog .effects", "cut off")
    page.check_faults(axe)
    do_it(page)
    assert outside.default() == "deny"
    outside.until_status(403)
    page.check_nothing_left()


def conflicts(page, token, upstream, axe):
    """Somebody else changes intentions between a plan and its confirmation: it is refused, nothing that was typed is lost, and the
    plan is made again of what there is now."""
    outside = Outside(page, token, upstream)
    page.log_in(token)
    page.go("/intentions", "Intentions")

    # In the form.
    page.press("Add…")
    page.fill("Caller", "web")
    page.fill("Called", "api")
    page.fill("Description", "invoices for the shop")
    page.press("Show the plan")
    page.until_text("dialog .diff.added", "web -> api: allow (invoices for the shop)")
    page.fill("Reason, for the history", "the shop needs it")
    outside.set("web", "api", "deny")
    page.press("Do it")
    page.until_text("dialog .failed", "intentions changed in revision")
    page.check_faults(axe)
    assert outside.intentions()["web", "api", False]["action"] == "deny"
    page.press("Show the plan of what there is now")
    page.until_text("dialog .diff.removed", "web -> api: deny")
    page.until_text("dialog .diff.added", "web -> api: allow (invoices for the shop)")
    page.until("the reason is there", lambda: page.control("Reason, for the history").get_attribute("value") == "the shop needs it")
    # It is not too late to say something else.
    page.press("Back")
    page.until("what was typed is there", lambda: page.control("Description").get_attribute("value") == "invoices for the shop")
    page.fill("Description", "invoices for the web shop")
    page.press("Show the plan")
    page.until_text("dialog .diff.added", "web -> api: allow (invoices for the web shop)")
    do_it(page)
    made = outside.intentions()["web", "api", False]
    assert (made["action"], made["description"], made["reason"]) == ("allow", "invoices for the web shop", "the shop needs it"), made
    outside.until_status(200)

    # What the control plane refuses is not lost either.
    page.press("Edit web to api")
    page.choose("Says", "permissions on HTTP requests")
    page.choose("Path", "path matches")
    page.fill("of", "/v1/(")
    page.press("Show the plan")
    page.until_text("dialog .failed", "/v1/(")
    page.press("Back")
    page.until("what was typed is there", lambda: page.control("of").get_attribute("value") == "/v1/(")
    page.press("Close")

    # A deletion.
    page.press("Delete web to api")
    page.until_text("dialog .diff.removed", "web -> api")
    outside.set("mail", "api", "deny")
    page.press("Do it")
    page.until_text("dialog .failed", "intentions changed in revision")
    page.press("Show the plan of what there is now")
    page.until_text("dialog .diff.removed", "web -> api")
    assert "mail" not in page.text("dialog .plan"), page.text("dialog .plan")
    do_it(page)
    assert set(outside.intentions()) == {("mail", "api", False)}
    outside.until_status(403)

    # The way back.
    page.go("/history", "History")
    page.until("the changes are there", lambda: page.find("#main .changes li:nth-child(3)"))
    allowed = page.text("#main .changes li:nth-child(2) h2").split()[1]
    page.press(f"Back to revision {allowed}…")
    page.until_text("dialog .diff.added", "web -> api: allow")
    outside.set("cron", "api", "deny")
    page.press("Do it")
    page.until_text("dialog .failed", "intentions changed in revision")
    page.press("Show the plan of what there is now")
    page.until_text("dialog .diff.removed", "cron -> api")
    do_it(page)
    assert set(outside.intentions()) == {("mail", "api", False), ("web", "api", False)}
    outside.until_status(200)
    page.check_nothing_left()


def live(page, token, upstream, axe):
    """Lines stay while they are paused, can be filtered, and others are told of."""
    outside = Outside(page, token, upstream)
    page.log_in(token)
    page.go("/live", "Live")
    page.until("denials come", lambda: len(page.rows()) >= 2)
    page.press("Pause")
    page.until_text("#main", "Paused;")
    kept = page.rows()
    page.until("others are counted", lambda: any(f" {count} lines since" in page.text("#main") for count in range(2, 100)))
    assert page.rows() == kept
    page.fill("Service", "nobody")
    page.until_text("#main", f"None of {len(kept)} line")
    page.fill("Service", "we")
    page.until("those of web are there, and no others came", lambda: page.rows() == kept)
    page.check_faults(axe)
    page.press("Go on")
    page.until("the newest come", lambda: page.rows()[0] != kept[0])
    assert "Paused" not in page.text("#main")

    # What goes through is shown only when it is asked for.
    outside.set("web", "api", "allow")
    outside.until_status(200)
    page.press("Clear")
    page.until_text("#main", "Nothing yet.")
    page.choose("Show", "everything")
    page.until_text("#main tbody", "allowed")
    page.choose("Show", "denied")
    page.until("none of them is shown", lambda: "allowed" not in page.text("#main tbody"))
    page.check_nothing_left()


def of_one_destination(page, token, upstream, secret):
    """A token that may write the intentions of one service sees what its changes would do, and nothing of others."""
    outside = Outside(page, token, upstream)
    outside.until_seen()
    page.log_in(secret)
    page.go("/intentions", "Intentions")
    page.until_text("#main", "There is none yet")
    page.press("Add…")
    page.fill("Caller", "web")
    page.fill("Called", "api")
    page.press("Show the plan")
    page.until_text("dialog .diff.added", "web -> api: allow")
    page.until_text("dialog .effects", "let through")
    do_it(page)
    page.until_text("#main table", "web")
    outside.until_status(200)
    assert "billing" not in page.text("#main")
    page.press("Delete web to api")
    page.until_text("dialog .diff.removed", "web -> api")
    page.until_text("dialog .effects", "cut off")
    do_it(page)
    outside.until_status(403)
    page.press("Add…")
    page.fill("Caller", "web")
    page.fill("Called", "billing")
    page.press("Show the plan")
    page.until_text("dialog .failed", "intention:write")
    assert set(outside.intentions()) == {("shop", "billing", False)}
    page.check_nothing_left()
