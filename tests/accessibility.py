"""What axe-core finds wrong with a page that a browser shows."""

import contextlib

import pytest

# Width in pixels and colours: a desk by day and a phone by night.
VIEWS = ((1280, "light"), (390, "dark"))


@contextlib.contextmanager
def shown_as(browser, *, width: int, scheme: str):
  """Lays the page out for a width in pixels and a `light` or `dark` scheme."""
  size = {"width": width, "height": 900}
  metrics = size | {"deviceScaleFactor": 1, "mobile": False}
  scheme = {"name": "prefers-color-scheme", "value": scheme}
  browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
  browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
  try:
    yield
  finally:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def assert_accessible(browser) -> None:
  """Checks that axe-core finds nothing wrong with the page as it stands.

  It looks at it on a desk with light colours and on a phone with dark ones.
  """
  selenium = pytest.importorskip(
    "axe_core_python.selenium", reason="needs axe-core-python (extra `dev`)"
  )
  axe, found = selenium.Axe(), []
  for width, scheme in VIEWS:
    with shown_as(browser, width=width, scheme=scheme):
      result = axe.run(browser)
    assert result["passes"], "axe-core looked at nothing"
    found += [
      f"{width} px, {scheme}, {rule['impact']} {rule['id']}: "
      f"{node['html']}: {node['failureSummary']}"
      for rule in result["violations"]
      for node in rule["nodes"]
    ]
  assert not found, "\n".join(found)
