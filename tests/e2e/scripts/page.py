"""What a person does on the page: `page.py WHAT CONTROL TOKEN [MORE…]`. It ends with 1 where the page is not as it should be; the
last line that it prints is JSON."""

import json
import sys
import time

import page_changes
from page_browser import NARROW, SCHEMES, WIDE, Keys, Page
from page_mesh import relay

# The address of each view and its heading.
VIEWS = {
    "/graph": "Services and their calls",
    "/services": "Services",
    "/service/api": "api",
    "/intentions": "Intentions",
    "/live": "Live",
    "/history": "History",
    "/kv": "Keys",
    "/kv/app/motd": "Keys",
    "/certificates": "Certificates",
    "/control": "Control plane",
}


def log_in(page, token):
    """A wrong token is refused with the cure, a right one is taken, and it is gone when the page is loaded again."""
    page.open("/")
    assert page.driver.current_url.startswith(page.origin + "/ui/"), page.driver.current_url
    page.fill("Token", token[:-4] + "AAAA")
    page.press("Log in")
    page.until_text("[role=alert]", "not valid here")
    page.until_text("[role=alert]", "operator.token")
    assert not page.find("svg.graph")
    page.fill("Token", token)
    page.press("Log in")
    page.until("the graph is drawn", lambda: page.find("svg.graph"))
    page.check_nothing_left()
    page.driver.refresh()
    assert page.control("Token").get_attribute("value") == ""
    assert not page.find("svg.graph")


def limited(page, secret):
    """A token that may do little is taken, and each view says what it lacks."""
    page.open()
    page.fill("Token", secret)
    page.press("Log in")
    page.until("it is in", lambda: page.find("nav a[aria-current]"))
    page.go("/control", VIEWS["/control"])
    page.until_text("#main .failed", "meshctl acl policy set")
    page.go("/kv/app/motd", "Keys")
    page.until("the value is shown", lambda: page.control("Value").get_attribute("value") == "hello")
    page.press("Save")
    page.until_text("#main .failed", "meshctl acl")


def effects(page, word):
    """What a plan says of the calls that were seen, where the control plane tells."""
    if page.find("dialog .effects"):
        page.until_text("dialog .effects", word)


def loop(page, token, shots):
    """See the graph, find a denied edge, read why, allow it, see the traffic flow, roll back."""
    page.log_in(token)
    page.drawn()
    page.press("web → api")
    page.until_text(".panel", "default (deny)")
    page.shot(shots, "loop-1-denied")
    page.press("Why: web to api", ".panel")
    page.until_text("dialog .answer", "denied by default")
    page.shot(shots, "loop-2-why")
    page.press("Allow…")
    page.press("Show the plan")
    page.until_text("dialog .diff.added", "web -> api: allow")
    effects(page, "let through")
    page.fill("Reason, for the history", "web needs it")
    page.shot(shots, "loop-3-plan")
    page.press("Do it")
    page.until_text("dialog .done", "In force on 1 of 1 sidecar")
    page.press("Close", "dialog .plan")
    page.until_text("dialog .answer", "allowed")
    page.press("Close")
    page.until("the link is allowed", lambda: page.find(".graph .link.allow"))
    page.until("it is written on the link how much flows", lambda: "/s" in page.text(".graph .label.allow"))
    page.shot(shots, "loop-4-allowed")
    page.go("/history", VIEWS["/history"])
    page.until_text("#main .changes li", "web needs it")
    allowed = page.text("#main .changes li:nth-child(1) h2").split()[1]
    before = page.text("#main .changes li:nth-child(2) h2").split()[1]
    page.shot(shots, "loop-5-history")
    page.press(f"Back to revision {before}…")
    page.until_text("dialog .diff.removed", "web -> api: allow")
    effects(page, "cut off")
    page.shot(shots, "loop-6-rollback")
    page.press("Do it")
    page.until_text("dialog .done", "In force on 1 of 1 sidecar")
    page.press("Close", "dialog .plan")
    page.until("the way back is in the history", lambda: page.text("#main .changes li:nth-child(1) h2").split()[1] > allowed)
    page.go("/graph", VIEWS["/graph"])
    page.until("it is denied again", lambda: page.find(".graph .link.deny"))
    page.go("/live", VIEWS["/live"])
    page.until_text("#main tbody", "default (deny)")
    page.until("who listens hears of denials", lambda: "web to api denied" in page.driver.execute_script("return document.getElementById('alarm').textContent"))
    page.shot(shots, "loop-7-live")
    page.check_nothing_left()
    return {"allowed": int(allowed), "before": int(before)}


def intentions(page, token):
    """Added, edited and deleted, each with its plan; nothing is written before."""
    page.log_in(token)
    page.go("/intentions", VIEWS["/intentions"])
    page.press("Add…")
    page.fill("Caller", "shop")
    page.fill("Called", "api")
    page.choose("Says", "permissions on HTTP requests")
    page.fill("Methods", "get, head")
    page.choose("Path", "path starts with")
    page.fill("of", "/v1/")
    page.press("Show the plan")
    page.until_text("dialog .diff.added", "shop -> api: allow GET|HEAD /v1/*; otherwise deny")
    page.press("Do it")
    page.until_text("dialog .done", "Done.")
    page.press("Close", "dialog .plan")
    page.until_text("#main table", "allow GET|HEAD /v1/*")
    page.press("Edit shop to api")
    page.choose("Says", "deny")
    page.press("Show the plan")
    page.until_text("dialog .diff.added", "shop -> api: deny")
    # A plan that is left changes nothing.
    page.type(Keys.ESCAPE)
    page.until("the dialog is gone", lambda: not page.find("dialog"))
    page.press("Delete shop to api")
    page.until_text("dialog .diff.removed", "shop -> api")
    page.press("Do it")
    page.until_text("dialog .done", "Done.")
    page.press("Close", "dialog .plan")
    page.until("it is gone", lambda: "shop" not in page.text("#main table"))
    page.fill("Caller", "shop")
    page.fill("Called", "api")
    page.press("Explain")
    page.until_text(".explained .answer", "denied by default")
    page.check_nothing_left()


def keys(page, token):
    """A key is made and changed; what somebody else changed meanwhile is not overwritten unseen."""

    def outside(method, path, body=None):
        script = "return fetch(arguments[0], {method: arguments[1], body: arguments[2], headers: {'X-Consul-Token': arguments[3]}}).then((answer) => answer.text())"
        return page.driver.execute_script(script, path, method, body, token)

    colour = "/v1/kv/app/color%20of%20the%20day"
    page.log_in(token)
    page.go("/kv", "Keys")
    page.fill("New key", "app/color of the day")
    page.press("Add")
    page.until_text("#main", "not there yet")
    page.fill("Value", "blue\nnot green ✓")
    page.fill("Flags", "42")
    page.press("Save")
    page.until_text("#main [role=status]", "Saved.")
    assert outside("PUT", f"{colour}?flags=7", "red") == "true"
    page.fill("Value", "yellow")
    # More than a number holds in JavaScript.
    page.fill("Flags", "18446744073709551615")
    page.press("Save")
    page.until_text("#main .failed", "was changed at revision")
    page.until_text("#main pre", "red")
    page.press("Keep mine, to save over it")
    page.until("mine is kept", lambda: page.control("Value").get_attribute("value") == "yellow")
    assert page.control("Flags").get_attribute("value") == "18446744073709551615"
    page.press("Save")
    page.until_text("#main [role=status]", "Saved.")
    assert page.control("Flags").get_attribute("value") == "18446744073709551615"
    assert '"Flags":18446744073709551615' in outside("GET", colour).replace(" ", "")
    # It became what is no text, and then it went: what is typed stays all the same.
    page.fill("Value", "green")
    script = "return fetch(arguments[0], {method: 'PUT', body: new Uint8Array([0, 255, 16]), headers: {'X-Consul-Token': arguments[1]}}).then((answer) => answer.text())"
    assert page.driver.execute_script(script, colour, token) == "true"
    page.press("Save")
    page.until_text("#main .failed", "was changed at revision")
    page.until_text("#main pre", "00 ff 10")
    page.press("Keep mine, to save over it")
    page.until("mine is kept", lambda: page.control("Value").get_attribute("value") == "green")
    assert outside("DELETE", colour) == "true"
    page.press("Save")
    page.until_text("#main .failed", "was deleted after")
    page.press("Keep mine, to save over it")
    page.until_text("#main", "not there yet")
    assert page.control("Value").get_attribute("value") == "green"
    page.fill("Value", "yellow")
    page.press("Save")
    page.until_text("#main [role=status]", "Saved.")
    # What is no text is shown, and can go, and is not changed.
    page.driver.execute_script(script, "/v1/kv/app/blob", token)
    page.go("/kv/app/blob", "Keys")
    page.until("it is shown", lambda: page.control("Value").get_attribute("value") == "00 ff 10")
    page.until_text("#main", "is not text")
    assert page.control("Value").get_attribute("readonly") and not page.named("button", "Save", "#main")
    page.press("Delete…")
    assert outside("PUT", "/v1/kv/app/blob", "text now") == "true"
    page.press("Delete")
    page.until_text("#main .failed", "Nothing was deleted")
    assert not page.named("button", "Keep mine, to save over it", "#main")
    page.press("Take what it says now")
    page.until("it is text", lambda: page.control("Value").get_attribute("value") == "text now")
    page.press("Delete…")
    page.press("Delete")
    page.until("it is gone", lambda: "blob" not in page.text("#main") and page.find("#main table"))
    # A browser takes dots for the way up, a store does not.
    page.go("/kv/app/../motd", "Keys")
    page.until_text("#main", "not there yet")
    page.press("all keys")
    page.press("app/")
    page.press("color of the day")
    page.until("it is shown", lambda: page.control("Value").get_attribute("value") == "yellow")
    page.press("Delete…")
    page.press("Delete")
    page.until("it is gone", lambda: "color" not in page.text("#main"))
    page.check_nothing_left()


def markup(page, token):
    """What looks like markup is shown as text."""
    page.log_in(token)
    for view, heading in [("/intentions", "Intentions"), ("/kv", "Keys"), ("/graph", VIEWS["/graph"])]:
        page.go(view, heading)
        time.sleep(0.3)
    page.go("/intentions", "Intentions")
    page.until_text("#main table", "<img src=x onerror=document.title='hit'>")
    page.go("/kv", "Keys")
    page.until_text("#main table", "<script src=x onerror=document.title='hit'>")
    assert not page.find("#main img, #main script")
    assert "hit" not in page.driver.title
    page.check_nothing_left()


def faults(page, token, axe, shots):
    """No view has a serious fault, in either scheme; at either width nothing but tables is wider than the page."""
    page.log_in(token)
    found = []
    for scheme in SCHEMES:
        for view, heading in VIEWS.items():
            for size in (WIDE, NARROW):
                page.look(size, scheme)
                page.go(view, heading)
                page.until("it has its data", lambda: page.find("#main table, #main svg[data-drawn], #main .nothing, #main .facts, #main textarea, #main .changes li"))
                time.sleep(0.4)
                page.shot(shots, f"{view.strip('/').replace('/', '-')}-{size[0]}-{scheme}")
                wide = page.driver.execute_script("return document.documentElement.scrollWidth > innerWidth")
                if wide:
                    found.append(f"{view} at {size[0]}: wider than the page")
                found += [f"{view} {scheme} at {size[0]}: {fault}" for fault in page.faults(axe)]
        page.look(WIDE, scheme)
        page.go("/graph", VIEWS["/graph"])
        page.press("As a table")
        page.until("there is the table", lambda: page.find("#main table, #main .nothing"))
        found += [f"graph as a table, {scheme}: {fault}" for fault in page.faults(axe)]
        page.go("/intentions", VIEWS["/intentions"])
        page.press("Add…")
        found += [f"form, {scheme}: {fault}" for fault in page.faults(axe)]
        page.shot(shots, f"form-1600-{scheme}")
        page.type(Keys.ESCAPE)
    page.press("Log out")
    found += [f"log-in: {fault}" for fault in page.faults(axe)]
    page.shot(shots, "login-1600-dark")
    page.check_nothing_left()
    assert not found, "\n".join(found)


def keyboard(page, token):
    """Nothing of the graph needs a pointer, and nothing keeps the focus."""
    page.log_in(token)
    page.drawn()
    page.until("the calls are seen", lambda: "1 pair with calls" in page.text("#graph-note"))
    page.driver.execute_script("document.getElementById('skip').focus()")
    passed = []
    for _ in range(60):
        page.type(Keys.TAB)
        passed.append(page.focused())
        if passed[-1].startswith("web "):
            break
    assert passed[-1].startswith("web "), passed
    page.type(Keys.ARROW_RIGHT)
    page.until("it is the one that is called", lambda: page.focused().startswith("api "))
    page.type(" ")
    page.until_text(".panel h2", "api")
    page.type(Keys.ARROW_LEFT)
    page.until("it is the caller again", lambda: page.focused().startswith("web "))
    page.type(Keys.TAB)
    assert not page.focused().startswith(("web ", "api ")), page.focused()
    page.driver.switch_to.active_element.send_keys(Keys.SHIFT + Keys.TAB)
    page.until("it is the graph again", lambda: page.focused().startswith("web "))
    page.type(Keys.ENTER)
    page.until_text("#main h1", "web")
    assert page.focused() == "web", "the heading of the new view has the focus"


def large(page, token, services="500", edges="3000"):
    """A large mesh is drawn, and can be narrowed down. Prints how long the first view took, in milliseconds."""
    page.log_in(token)
    page.drawn()
    painted = "return performance.getEntriesByName('graph-drawn')[0]?.startTime - performance.getEntriesByName('logged-in')[0].startTime"
    took = page.until("it is painted", lambda: page.driver.execute_script(painted))
    assert page.text("#graph-note").startswith(f"{services} services, {edges} pairs with calls"), page.text("#graph-note")
    nodes, links = page.driver.execute_script("return [document.querySelectorAll('.graph .node').length, document.querySelectorAll('.graph .link').length]")
    assert (nodes, links) == (int(services), int(edges)), (nodes, links)
    name = page.driver.execute_script("return document.querySelector('.graph .node').dataset.name")
    page.fill("Filter", name)
    page.until("it is narrowed", lambda: 0 < page.driver.execute_script("return document.querySelectorAll('.graph .node').length") < int(services) / 4)
    loaded = page.driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    return {"first_view_ms": round(took, 1), "page_load_ms": round(loaded, 1)}


def main():
    what, control, token, *more = sys.argv[1:]
    address = relay(control, *(int(number) for number in more or (500, 3000))) if what == "large" else control
    with Page(address) as page:
        answer = (globals().get(what) or getattr(page_changes, what))(page, token, *more)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
