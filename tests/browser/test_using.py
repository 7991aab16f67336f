"""What the script adds works by pointer and by keys: sorting, reading out, switching, unfolding."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator, Page

Opener = Callable[..., Page]

INTERACTIVE = "a[href], button, summary, [tabindex='0']"
# Numbers them in the order of the document.
LABEL = f"() => document.querySelectorAll(`{INTERACTIVE}`).forEach((one, at) => one.dataset.at = at)"
SEEN = """() => [...document.querySelectorAll('[data-at]')]
  .filter(one => one.checkVisibility()).map(one => one.dataset.at)"""


def numbers(cells: Locator) -> list[float | None]:
    found = cells.evaluate_all("all => all.map(one => one.dataset.value)")
    return [float(value) if value else None for value in found]


def test_tab_reaches_everything_in_its_order_and_shows_where_it_is(opened: Opener) -> None:
    page = opened("laundered")
    page.evaluate(LABEL)
    wanted = page.evaluate(SEEN)
    assert len(wanted) > 60
    reached = []
    for _ in range(len(wanted)):
        page.keyboard.press("Tab")
        at, outline = page.evaluate(
            "() => [document.activeElement.dataset.at, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline == "solid"
        reached.append(at)
    assert reached == wanted


def test_the_first_key_leads_past_the_list_of_sections(opened: Opener) -> None:
    page = opened("laundered")
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    place = skip.bounding_box()
    assert place is not None
    assert place["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_what_folds_opens_and_closes_by_keys(opened: Opener) -> None:
    page = opened("laundered")
    fold = page.locator("#evidence details:not([open])").first
    handle = fold.element_handle()
    for key, then in (("Enter", True), ("Space", False)):
        handle.query_selector("summary").focus()
        page.keyboard.press(key)
        assert handle.evaluate("one => one.open") is then


def test_a_row_of_the_overview_leads_to_its_test_and_unfolds_it(opened: Opener) -> None:
    for script in (True, False):
        page = opened("laundered", java_script_enabled=script)
        fold = page.locator("details", has=page.locator("#test-2"))
        assert fold.get_attribute("open") is None
        page.locator("a[href='#test-2']").focus()
        page.keyboard.press("Enter")
        page.locator("#test-2").wait_for(state="visible")
        place = page.locator("#test-2").bounding_box()
        assert place is not None
        assert 0 <= place["y"] < 400


def test_evidence_sorts_upwards_downwards_and_back_by_keys(opened: Opener) -> None:
    page = opened("laundered")
    table = page.locator("table.overview")
    head = table.locator("thead th").nth(3)
    cells = table.locator("tbody td:nth-child(4)")
    recorded = numbers(cells)
    held = sorted(value for value in recorded if value is not None)
    gaps: list[float | None] = [None] * (len(recorded) - len(held))
    assert gaps
    head.locator("button").focus()
    for key, order, said in (
        ("Enter", held + gaps, "ascending"),
        ("Space", held[::-1] + gaps, "descending"),
        ("Enter", recorded, None),
    ):
        page.keyboard.press(key)
        assert numbers(cells) == order
        assert head.get_attribute("aria-sort") == said
        assert page.locator("[aria-sort]").count() == (said is not None)


def test_probabilities_too_small_for_a_float_sort_by_their_logarithm(opened: Opener) -> None:
    page = opened("independent")
    table = page.locator("table.overview")
    table.locator("thead th", has_text="kind").locator("button").click()
    kinds = [float(value or -1) for value in numbers(table.locator("tbody td:nth-child(2)"))]
    assert kinds == sorted(kinds)
    assert len(set(kinds)) > 2
    table.locator("thead th", has_text="p").first.locator("button").click()
    logarithms = [one for one in numbers(table.locator("tbody td:nth-child(3)")) if one is not None]
    assert logarithms == sorted(logarithms)
    assert logarithms[0] < -0.1


def test_every_table_of_details_sorts_too(opened: Opener) -> None:
    page = opened("laundered")
    page.locator(".unfold").click()
    tables = page.locator("table.sortable").all()
    assert len(tables) > 10
    for table in tables:
        button = table.locator("thead button").last
        before = sorted(table.locator("tbody tr").all_inner_texts())
        button.click()
        assert table.locator("thead th").last.get_attribute("aria-sort") == "ascending"
        assert sorted(table.locator("tbody tr").all_inner_texts()) == before


def test_a_mark_under_the_pointer_or_stepped_to_is_read_out(opened: Opener) -> None:
    page = opened("laundered")
    figure = page.locator("#layers figure").first
    out = figure.get_by_role("status")
    hint = out.inner_text()
    marks = figure.locator("svg :has(> title)")
    told = figure.locator("svg title").all_text_contents()
    marks.nth(2).hover()
    assert out.inner_text() == told[2]
    figure.locator(".wide").focus()
    page.keyboard.press("Home")
    assert out.inner_text() == told[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert out.inner_text() == told[1]
    assert figure.locator(".now").count() == 1
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert out.inner_text() == told[-1]
    page.keyboard.press("Escape")
    assert out.inner_text() == hint
    assert figure.locator(".now").count() == 0


def test_a_switch_hides_its_series_and_keys_pass_it_over(opened: Opener) -> None:
    page = opened("laundered")
    page.locator(".unfold").click()
    figures = page.locator("figure:has(.switches)").all()
    assert len(figures) >= 4
    for figure in figures:
        named = figure.locator("svg .series").evaluate_all("all => all.map(one => one.dataset.label)")
        assert figure.locator(".switch").all_text_contents() == list(dict.fromkeys(named))
    figure = page.locator("figure", has_text="Standard deviations over depth")
    switch = figure.locator(".switch").first
    switch.focus()
    page.keyboard.press("Space")
    assert switch.get_attribute("aria-pressed") == "false"
    assert not figure.locator("svg .series path").first.is_visible()
    figure.locator(".wide").focus()
    page.keyboard.press("Home")
    first = figure.locator("svg .series").nth(1).locator("title").first.text_content()
    assert figure.get_by_role("status").inner_text() == first
    switch.focus()
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-pressed") == "true"
    assert figure.locator("svg .series path").first.is_visible()


def test_everything_unfolds_and_folds_at_once(opened: Opener) -> None:
    page = opened("laundered")
    button = page.locator(".unfold")
    button.click()
    assert page.locator("main details:not([open])").count() == 0
    assert button.inner_text() == "Fold everything"
    button.click()
    assert page.locator("main details[open]").count() == 0
