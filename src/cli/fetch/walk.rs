//! In which order pages come, and where a walk goes on. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pattern::{MAX_PAGES, Template};

/// A page, by its place: the URL of the command line, the series of its patterns, and the place in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) url: usize,
    pub(super) series: u64,
    pub(super) index: u64,
}

/// Walks the pages of all URLs in order.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    templates: Arc<[Template]>,
    next: Place,
}

// === impl Place ===

impl Place {
    pub(super) const FIRST: Self = Self { url: 0, series: 0, index: 0 };

    /// Whether one empty page is the end of both.
    pub(super) fn is_in_series_of(self, other: Self) -> bool {
        (self.url, self.series) == (other.url, other.series)
    }
}

// === impl Walk ===

impl Walk {
    /// Goes on at `next`.
    pub(super) fn from(templates: Arc<[Template]>, next: Place) -> Self {
        Self { templates, next }
    }

    /// The next page, which is stepped over; `None` behind the last one.
    pub(super) fn step(&mut self) -> Option<Place> {
        self.templates.get(self.next.url)?;
        let place = self.next;
        self.next = self.after(place);
        Some(place)
    }

    /// The place behind a page.
    pub(super) fn after(&self, place: Place) -> Place {
        let length = self.templates.get(place.url).and_then(Template::length).unwrap_or(MAX_PAGES);
        if place.index + 1 < length { Place { index: place.index + 1, ..place } } else { self.after_series(place) }
    }

    /// The place behind the series of a page.
    pub(super) fn after_series(&self, place: Place) -> Place {
        let series = self.templates.get(place.url).and_then(Template::series).unwrap_or(1);
        if place.series + 1 < series {
            Place { url: place.url, series: place.series + 1, index: 0 }
        } else {
            Place { url: place.url + 1, series: 0, index: 0 }
        }
    }

    /// Ends the series of a page, if it is still walked.
    pub(super) fn end_series(&mut self, place: Place) {
        if self.next.is_in_series_of(place) {
            self.next = self.after_series(place);
        }
    }

    /// Pages from here to the end; `None` where there is none, or an empty page may come first.
    pub(super) fn left(&self) -> Option<u64> {
        let Some(template) = self.templates.get(self.next.url) else { return Some(0) };
        let here = template.length()?.checked_sub(self.next.index)?;
        let below = template.length()?.checked_mul(template.series()?.checked_sub(self.next.series + 1)?)?;
        let others = self.templates.iter().skip(self.next.url + 1);
        let others = others.map(|template| template.length()?.checked_mul(template.series()?));
        others.chain([Some(here), Some(below)]).try_fold(0, |sum: u64, pages| sum.checked_add(pages?))
    }

    /// The URL of a page.
    pub(super) fn url(&self, place: Place) -> String {
        self.templates.get(place.url).map_or_else(String::new, |template| template.url(place.series, place.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(urls: &[&str]) -> Walk {
        let templates = urls.iter().map(|url| Template::parse(&format!("http://h/{url}")).unwrap());
        Walk::from(templates.collect(), Place::FIRST)
    }

    fn rest(mut walk: Walk) -> String {
        let mut pages = Vec::new();
        while let Some(place) = walk.step() {
            pages.push(walk.url(place).replace("http://h/", ""));
        }
        pages.join(" ")
    }

    #[test]
    fn a_walk_takes_url_after_url_and_can_go_on_anywhere() {
        let whole = walk(&["{a,b}{1..3}", "x", "{8..9}"]);
        assert_eq!(rest(whole.clone()), "a1 a2 a3 b1 b2 b3 x 8 9");
        assert_eq!(whole.left(), Some(9));
        let mut steps = whole.clone();
        for left in (0..9).rev() {
            let place = steps.step().unwrap();
            assert_eq!(steps.left(), Some(left));
            let again = Walk::from(Arc::clone(&whole.templates), whole.after(place));
            assert_eq!(rest(again), rest(steps.clone()));
        }
        assert_eq!((steps.step(), steps.left()), (None, Some(0)));
    }

    #[test]
    fn the_end_of_a_series_leads_to_the_next_one() {
        let mut walk = walk(&["{a,b}{1..}", "x"]);
        assert_eq!(walk.left(), None);
        let first = walk.step().unwrap();
        walk.step();
        walk.end_series(first);
        let second = walk.step().unwrap();
        assert_eq!(walk.url(second), "http://h/b1");
        walk.end_series(first);
        assert_eq!(walk.url(walk.next), "http://h/b2", "a series that is over is not ended again");
        walk.end_series(second);
        assert_eq!(rest(walk), "x");
    }

    #[test]
    fn a_walk_without_end_has_one() {
        let walk = walk(&["{1..}"]);
        let last = Place { url: 0, series: 0, index: MAX_PAGES - 1 };
        assert_eq!(walk.after(last), Place { url: 1, series: 0, index: 0 });
    }
}
