"""The main flows in a browser: by keyboard, without JavaScript, and live."""

import re

from playwright.sync_api import expect

PASSWORD = "Correct-horse-9"


def test_given_a_stranger_when_they_sign_up_then_the_wizard_begins_and_refuses_a_wrong_account(visit):
    page = visit().page
    page.goto("/signup")
    page.get_by_label("Organization").fill("Globex")
    page.get_by_label("E-mail").fill("hank@globex.test")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create organization").click()
    page.wait_for_url("**/onboarding/connect")

    page.get_by_label("AWS account id").fill("123456789099")
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url(re.compile("/role$"))

    expect(page.get_by_text("External id", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Open CloudFormation")).to_have_attribute(
        "href", re.compile(r"^https://.*amazon.com/cloudformation")
    )


def test_given_a_wrong_password_when_signing_in_then_the_form_says_so(visit):
    visitor = visit()
    visitor.page.goto("/login")
    visitor.page.get_by_label("E-mail").fill("alice@acme.test")
    visitor.page.get_by_label("Password").fill("wrong")
    visitor.page.keyboard.press("Enter")

    expect(visitor.page.get_by_role("alert")).to_contain_text("password is wrong")
    assert [line for line in visitor.complaints if "400" not in line] == []
    visitor.complaints.clear()


def test_given_the_keyboard_alone_when_a_plan_is_rejected_then_it_is(visit):
    visitor = visit().sign_in("bob@acme.test")
    page = visitor.open("/dashboard")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Control+k")
    page.get_by_role("searchbox").press_sequentially("shop-production")
    expect(page.locator("#palette-results").get_by_text("Waiting for approval")).to_be_visible()
    for _ in range(8):
        page.keyboard.press("ArrowDown")
        if page.locator("#palette-results [aria-selected=true]", has_text="Waiting for approval").count():
            break
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/plans/"))

    page.locator("#reject summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("Not this week.")
    page.keyboard.press("Enter")

    expect(page.locator(".title-row").get_by_text("Rejected")).to_be_visible()
    expect(page.get_by_text("Not this week.")).to_be_visible()


def test_given_no_javascript_when_filtering_and_switching_accounts_then_both_work(visit):
    visitor = visit(java_script_enabled=False).sign_in("alice@acme.test")
    page = visitor.open("/clusters")

    page.get_by_label("Region", exact=True).select_option("us-east-1")
    page.get_by_role("button", name="Filter").click()
    assert page.locator("a.name").all_inner_texts() == ["analytics", "sandbox"]

    visitor.open("/context")
    page.locator("main").get_by_role("button", name="Acme data").click()
    visitor.open("/clusters")
    expect(page.get_by_role("heading", name="No clusters yet")).to_be_visible()
    visitor.open("/context")
    page.locator("main").get_by_role("button", name="All accounts").click()


def test_given_an_open_page_when_somebody_else_acts_then_it_shows_without_a_reload(visit):
    watcher = visit().sign_in("vera@acme.test")
    page = watcher.open("/activity")
    expect(page.locator("[data-live]")).to_have_attribute("data-state", "live")
    page.evaluate("window.untouched = true")

    visit().sign_in("bob@acme.test")

    expect(page.locator("#activity li").first).to_contain_text("bob@acme.test", timeout=5000)
    assert page.evaluate("window.untouched") is True


def test_given_dark_is_chosen_when_the_page_is_opened_again_then_it_is_dark(visit):
    visitor = visit(scheme="light").sign_in("alice@acme.test")
    visitor.page.get_by_role("button", name="Switch between light and dark").click()

    visitor.open("/clusters")

    expect(visitor.page.locator("html")).to_have_attribute("data-bs-theme", "dark")


def test_given_another_organizations_cluster_when_opened_then_there_is_no_such_page(visit):
    owner = visit().sign_in("alice@acme.test")
    owner.open("/clusters")
    path = owner.page.locator("a.name").first.get_attribute("href")
    visitor = visit().sign_in("mallory@rival.test")

    for address in (path, f"{path}/nodes", f"{path}/plans", f"{path}/agent", f"{path}/cost.json"):
        assert visitor.page.request.get(address).status == 404


def test_given_no_javascript_when_a_policy_is_changed_then_mistakes_stand_beside_their_fields(visit):
    visitor = visit(java_script_enabled=False).sign_in("bob@acme.test")
    page = visitor.open("/policies")
    page.get_by_role("link", name="shop-staging").click()
    page.get_by_label("Fewest nodes").fill("2")
    page.get_by_role("button", name="Save policy").click()

    field = page.get_by_label("Fewest nodes")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field", has=field)).to_contain_text("greater than or equal to 3")
    visitor.complaints.clear()  # the browser's word about the status 400

    field.fill("4")
    page.get_by_role("button", name="Save policy").click()

    expect(page.get_by_text("Saved as version 2.")).to_be_visible()
    page.get_by_role("link", name="History").click()
    expect(page.get_by_role("cell", name="constraints.min_nodes")).to_be_visible()


def test_given_the_keyboard_alone_when_a_what_if_is_asked_and_cancelled_then_it_is(visit):
    visitor = visit().sign_in("bob@acme.test")
    page = visitor.open("/clusters")
    page.get_by_role("link", name="shop-production").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="What if").focus()
    page.keyboard.press("Enter")

    page.get_by_label("Spot prices change by").focus()
    page.keyboard.type("25")
    page.keyboard.press("Enter")

    expect(page.get_by_text("Spot prices +25 %")).to_be_visible()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".title-row").get_by_text("Cancelled")).to_be_visible()


def test_given_a_template_when_cloned_changed_and_deleted_then_each_is_confirmed(visit):
    visitor = visit().sign_in("bob@acme.test")
    page = visitor.open("/templates")
    page.get_by_role("link", name="Compute, high performance").click()
    expect(page.get_by_role("button", name="Save template")).to_have_count(0)
    page.get_by_role("button", name="Clone template").click()

    page.get_by_label("Name", exact=True).fill("Builders")
    page.get_by_text("General purpose").click()
    page.get_by_label("m6i", exact=True).check()
    page.get_by_role("button", name="Save template").click()
    expect(page.get_by_role("heading", name="Builders")).to_be_visible()
    expect(page.get_by_label("m6i", exact=True)).to_be_checked()

    page.locator("#delete summary").click()
    page.get_by_role("button", name="Delete template").click()
    expect(page.get_by_text("Builders is deleted.")).to_be_visible()
