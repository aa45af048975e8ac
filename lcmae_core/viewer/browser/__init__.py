"""The attention browser: `widget` in the notebook, `draw.js` on the page, `static` where nothing is live."""

from lcmae_core.viewer.browser.widget import AttentionBrowser

__all__ = ["AttentionBrowser"]
