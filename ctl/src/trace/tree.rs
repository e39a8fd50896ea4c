//! The spans of one trace in the order of a tree. Every span has its place, whatever the parents say: a parent may be
//! missing, because a program died before it sent its last spans, and broken parents may form a circle.

use std::collections::{BTreeMap, HashMap};

use super::span::{End, Span};
use crate::text::printable;

/// A shorter time between two spans is the work of both.
const GAP_NANOS: u64 = 1_000_000;
/// Deeper levels are not indented further, so that there is space for the names.
const LEVELS: usize = 10;

/// One line of the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// About the spans below it.
    Heading(String),
    /// Between the end of a span and the beginning of its child.
    Gap {
        branch: String,
        from: u64,
        until: u64,
    },
    Span {
        branch: String,
        /// In front of further lines about it.
        below: String,
        span: &'a Span,
    },
}

pub(super) fn entries(spans: &[Span]) -> Vec<Entry<'_>> {
    let mut walk = Walk::over(spans);
    let roots = walk.sorted(|span| span.parent.is_none());
    walk.visit(&roots, 0);
    for (parent, orphans) in walk.orphans() {
        let parent = printable(&parent);
        walk.heading(format!("the parent {parent} is not in this trace:"));
        walk.visit(&orphans, 1);
    }
    // The first span of each circle; its children are what else is in it.
    for index in walk.sorted(|_| true) {
        if !walk.seen[index] {
            walk.heading("these spans name each other as their parents:".to_owned());
            walk.visit(&[index], 1);
        }
    }
    walk.entries
}

struct Walk<'a> {
    spans: &'a [Span],
    by_id: HashMap<&'a str, usize>,
    /// Of each span, in the order in which they began.
    children: Vec<Vec<usize>>,
    seen: Vec<bool>,
    entries: Vec<Entry<'a>>,
}

/// A span that is to be visited.
struct Next {
    index: usize,
    level: usize,
    is_last: bool,
    /// In front of its branch.
    before: String,
    /// The end of its parent.
    after: Option<u64>,
}

impl<'a> Walk<'a> {
    fn over(spans: &'a [Span]) -> Self {
        let mut walk = Self {
            spans,
            by_id: HashMap::new(),
            children: vec![Vec::new(); spans.len()],
            seen: vec![false; spans.len()],
            entries: Vec::new(),
        };
        for (index, span) in spans.iter().enumerate() {
            walk.by_id.entry(&span.span_id).or_insert(index);
        }
        for index in walk.sorted(|span| span.parent.is_some()) {
            if let Some(parent) = walk.parent(index) {
                walk.children[parent].push(index);
            }
        }
        walk
    }

    fn parent(&self, index: usize) -> Option<usize> {
        let parent = self.spans[index].parent.as_deref()?;
        self.by_id.get(parent).copied()
    }

    fn sorted(&self, wanted: impl Fn(&Span) -> bool) -> Vec<usize> {
        let all = 0..self.spans.len();
        let mut found: Vec<usize> = all.filter(|index| wanted(&self.spans[*index])).collect();
        found.sort_by_key(|index| (self.spans[*index].began, &self.spans[*index].span_id));
        found
    }

    /// Spans whose parent is missing, by its id.
    fn orphans(&self) -> BTreeMap<String, Vec<usize>> {
        let mut orphans = BTreeMap::<String, Vec<usize>>::new();
        for index in self.sorted(|span| span.parent.is_some()) {
            if self.parent(index).is_none()
                && let Some(parent) = &self.spans[index].parent
            {
                orphans.entry(parent.clone()).or_default().push(index);
            }
        }
        orphans
    }

    fn heading(&mut self, text: String) {
        self.entries.push(Entry::Heading(text));
    }

    /// Without recursion: a trace may be deeper than the stack.
    fn visit(&mut self, siblings: &[usize], level: usize) {
        let mut stack = Vec::new();
        push(&mut stack, siblings, level, "", None);
        while let Some(next) = stack.pop() {
            if std::mem::replace(&mut self.seen[next.index], true) {
                continue;
            }
            let span = &self.spans[next.index];
            let (branch, below) = next.branch();
            if let Some(from) = next.after.filter(|from| span.began >= from + GAP_NANOS) {
                self.entries.push(Entry::Gap {
                    branch: format!("{}┊ ", next.before),
                    from,
                    until: span.began,
                });
            }
            let children = &self.children[next.index];
            let after = matches!(span.end, End::At { .. }).then(|| span.until());
            push(&mut stack, children, next.level + 1, &below, after);
            self.entries.push(Entry::Span {
                branch,
                below,
                span,
            });
        }
    }
}

/// In reverse, because the stack gives the last one first.
fn push(stack: &mut Vec<Next>, siblings: &[usize], level: usize, before: &str, after: Option<u64>) {
    for (place, index) in siblings.iter().enumerate().rev() {
        stack.push(Next {
            index: *index,
            level,
            is_last: place + 1 == siblings.len(),
            before: before.to_owned(),
            after,
        });
    }
}

impl Next {
    /// What stands in front of the span, and of the lines below it.
    fn branch(&self) -> (String, String) {
        let before = &self.before;
        match (self.level, self.is_last) {
            (0, _) => (String::new(), String::new()),
            (level, _) if level > LEVELS => {
                (format!("{before}+{} ", level - LEVELS), before.clone())
            }
            (_, true) => (format!("{before}└ "), format!("{before}  ")),
            (_, false) => (format!("{before}├ "), format!("{before}│ ")),
        }
    }
}

#[cfg(test)]
mod tests;
