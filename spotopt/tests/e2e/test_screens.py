"""Every page in light and dark, wide and narrow: it fits, it is accessible, and the console is silent."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from spotopt.tests.e2e.conftest import Visitor

SCREENSHOTS = Path(__file__).resolve().parents[3] / "screenshots"
"""Takes a picture of each page, width and colour scheme; git ignores it."""
WIDTHS = (390, 1440)
EVERY_RULE = {
    "type": "tag",
    "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
EYES_AND_THUMBS = {"type": "rule", "values": ["color-contrast", "target-size"]}
AXE = {"light": (1440, EVERY_RULE), "dark": (390, EYES_AND_THUMBS)}
"""In which width, and by which rules, axe looks at a page of each colour scheme."""
OWN_AFFAIRS = {"/logout", "/context", "/settings/profile", "/settings/password"}
"""What a viewer may change: their own session, view, name and password."""
FIXED = {
    "dashboard": "/dashboard",
    "dashboard-week": "/dashboard?range=7d",
    "clusters": "/clusters",
    "clusters-none": "/clusters?q=nothing-is-called-this",
    "plans": "/plans",
    "policies": "/policies",
    "policies-none": "/policies?q=nothing-is-called-this",
    "templates": "/templates",
    "template-new": "/templates/new",
    "activity": "/activity",
    "activity-verify": "/activity/verify",
    "settings-profile": "/settings/profile",
    "settings-organization": "/settings/organization",
    "settings-team": "/settings/team",
    "settings-accounts": "/settings/accounts",
    "context": "/context",
    "onboarding-connect": "/onboarding/connect",
    "styleguide": "/styleguide/",
}
TABS = ("nodes", "workloads", "plans", "karpenter", "actions", "interruptions", "agent")


@pytest.fixture(scope="module")
def screens(server, chromium):
    """Return the path of each screen, found by walking the lists as a person would."""
    context = chromium.new_context(base_url=server)
    page = Visitor(context, context.new_page()).sign_in("alice@acme.test").page

    def linked(path, text):
        page.goto(path)
        return page.locator("a.name", has_text=text).first.get_attribute("href")

    found = dict(FIXED)
    for name in ("shop-production", "sandbox", "analytics"):
        found[f"cluster-{name}"] = linked("/clusters", name)
    staging = linked("/clusters", "shop-staging")
    found |= {f"cluster-{tab}": f"{staging}/{tab}" for tab in TABS}
    found["cluster-sandbox-workloads"] = found["cluster-sandbox"] + "/workloads"
    found["node"] = linked(f"{staging}/nodes", "ip-10-0")
    found["plan-proposed"] = linked("/plans", "shop-production")
    found["plan-completed"] = linked("/plans?status=over", "shop-production")
    found["what-ifs"] = found["cluster-shop-production"] + "/what-if"
    found["what-ifs-none"] = f"{staging}/what-if"
    found["karpenter"] = found["cluster-shop-production"] + "/karpenter"
    found["karpenter-unheard"] = found["cluster-sandbox"] + "/karpenter"
    found["what-if-unheard"] = found["cluster-sandbox"] + "/what-if"
    found["what-if-done"] = linked(found["what-ifs"], "committed")
    found["what-if-running"] = linked(found["cluster-analytics"] + "/what-if", "committed")
    found["optimizing"] = found["cluster-analytics"] + "/plans"
    found["policy"] = linked("/policies", "shop-production")
    found["policy-history"] = found["policy"] + "/history"
    found["policy-defaults"] = linked("/policies", "sandbox")
    found["policy-history-none"] = found["policy-defaults"] + "/history"
    found["template"] = linked("/templates", "Batch")
    found["template-system"] = linked("/templates", "Memory")
    found["plan-running"] = linked("/plans", "shop-staging")
    active, pending = (
        linked("/settings/accounts", "Acme production"),
        linked("/settings/accounts", "Acme labs"),
    )
    found["settings-account"] = active
    for step, account in (("role", pending), ("scan", active), ("agents", active)):
        found[f"onboarding-{step}"] = f"/onboarding/{account.rpartition('/')[2]}/{step}"
    page.goto("/activity?q=policy")
    found["activity-event"] = page.locator("#activity li a").first.get_attribute("href")
    context.close()
    return found


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def squeezed(page):
    """Return the texts in columns so narrow that words break in the middle."""
    return page.evaluate(
        """() => [...document.querySelectorAll('main *')]
            .filter(each => [...each.childNodes].some(
                child => child.nodeType === Node.TEXT_NODE && child.textContent.trim().length > 8))
            .filter(each => {
                const box = each.getBoundingClientRect()
                return box.width > 2 && box.width < 56 && box.height > 80
            })
            .map(each => each.textContent.trim().slice(0, 40))"""
    )


def serious(page, rules=EVERY_RULE):
    """Return the serious and critical violations that axe finds, each with the first element."""
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:160]} {rule['nodes'][0].get('failureSummary', '')[:200]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_given_seeded_rows_when_every_page_is_opened_then_it_fits_and_is_accessible(visit, screens, scheme):
    visitor = visit(scheme=scheme, reduced_motion="reduce")
    problems = check(visitor.open("/login"), "login", scheme)
    problems += check(visitor.open("/signup"), "signup", scheme)
    visitor.sign_in("alice@acme.test")

    for name, path in screens.items():
        problems += check(visitor.open(path), name, scheme)

    assert problems == []


def check(page, name, scheme):
    """Return what is wrong with the open page: its fit in each width, and what axe finds in one of them."""
    axe_width, rules = AXE[scheme]
    problems = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
        if overflow(page) > 0:
            problems.append(f"{name}: {overflow(page)} px too wide at {width}")
        problems += [f"{name} at {width}: {text!r} is squeezed" for text in squeezed(page)]
        if width == axe_width:
            problems += [f"{name} at {width}: {violation}" for violation in serious(page, rules)]
    return problems


def test_given_an_empty_organization_when_its_pages_are_opened_then_each_says_what_to_do(visit):
    visitor = visit(reduced_motion="reduce").sign_in("new@empty.test")

    for path, words in (
        ("/dashboard", "No AWS account is connected"),
        ("/clusters", "No clusters yet"),
        ("/plans", "No plans"),
        ("/policies", "No policies yet"),
        ("/templates", "No templates yet"),
        ("/settings/accounts", "No AWS account"),
    ):
        page = visitor.open(path)
        assert page.get_by_role("heading", name=words).is_visible()
        assert serious(page) == []


def test_given_a_viewer_when_pages_are_opened_then_nothing_can_be_changed(visit, screens):
    visitor = visit().sign_in("vera@acme.test")
    page = visitor.page

    for path in screens.values():
        if re.search(r"/onboarding/(connect|.*/role)|styleguide", path):
            continue
        body = page.request.get(path).text()
        posts = set(re.findall(r'<form[^>]*method="post"[^>]*action="([^"]+)"', body))
        assert posts <= OWN_AFFAIRS, f"{path} lets a viewer post"
    visitor.open("/plans")
    assert page.get_by_text("Read only").first.is_visible()
