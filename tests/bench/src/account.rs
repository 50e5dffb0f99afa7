//! An account at Stripe of any size, which takes no more memory than its index: a few life-cycles,
//! told again and again under other ids at other times.

use crate::Trouble;
use serde::Deserialize;
use std::collections::HashMap;

/// Stands in a sketch for the number of the round.
const ROUND: char = '\u{1}';
/// Stands in a sketch before a time.
const MOMENT: char = '\u{2}';
/// How many digits a round's number has: the end of every id.
const DIGITS: usize = 8;

/// What the account is made from.
#[derive(Deserialize)]
pub struct Plan {
    /// How often the life-cycles are told.
    rounds: u32,
    /// So many seconds after one another.
    apart: i64,
    /// By path: `/v1/customers`.
    lists: HashMap<String, Vec<Sketch>>,
}

/// One object of a life-cycle.
#[derive(Deserialize)]
struct Sketch {
    /// Its JSON, with marks in it.
    text: String,
    /// Its id without the round's number.
    id: String,
    created: i64,
    /// Whether all rounds have it in common.
    shared: bool,
}

/// The account, by path.
pub struct Account(HashMap<String, List>);

struct List {
    apart: i64,
    sketches: Vec<Sketch>,
    /// When each object was created, in which round, and from which sketch; the oldest first.
    index: Vec<(i64, u32, usize)>,
}

/// The parameters of a request.
pub type Query = HashMap<String, String>;

impl Account {
    /// Lays out the lists.
    pub fn of(plan: Plan) -> Account {
        let lists = plan.lists.into_iter();
        Account(
            lists
                .map(|(path, sketches)| (path, List::of(sketches, plan.rounds, plan.apart)))
                .collect(),
        )
    }

    /// The answer to `GET path?query`; none for what is not there.
    ///
    /// # Errors
    /// If the query is not as Stripe's API wants it.
    pub fn get(&self, path: &str, query: &Query) -> Result<Option<String>, Trouble> {
        if let Some(list) = self.0.get(path) {
            let (objects, has_more) = list.page(query)?;
            let data = objects.join(",");
            return Ok(Some(format!(
                r#"{{"object":"list","url":"{path}","has_more":{has_more},"data":[{data}]}}"#
            )));
        }
        let (path, id) = path.rsplit_once('/').unwrap_or_default();
        let list = self.0.get(path);
        Ok(list.and_then(|list| Some(list.object(list.find(id)?))))
    }
}

impl List {
    fn of(sketches: Vec<Sketch>, rounds: u32, apart: i64) -> List {
        let mut index = Vec::new();
        for (place, sketch) in sketches.iter().enumerate() {
            let rounds = if sketch.shared { 1 } else { rounds };
            index.extend((0..rounds).map(|round| (sketch.at(round, apart), round, place)));
        }
        index.sort_unstable();
        List {
            apart,
            sketches,
            index,
        }
    }

    /// The objects that a query asks for, the newest first, and whether there are more of them.
    /// <https://docs.stripe.com/api/pagination>
    fn page(&self, query: &Query) -> Result<(Vec<String>, bool), Trouble> {
        let number = |name: &str| query.get(name).map(|text| text.parse::<i64>()).transpose();
        let place = |name: &str| match query.get(name) {
            Some(id) => self.find(id).map(Some).ok_or("no such object"),
            None => Ok(None),
        };
        let paid = query.get("payment[payment_intent]");
        if let Some(id) = paid.or_else(|| query.get("invoice")) {
            return Ok((self.about(id), false));
        }
        let limit = number("limit")?.map_or(10, |limit| limit as usize);
        let low = number("created[gte]")?.map_or(0, |second| self.before(second));
        let high =
            number("created[lte]")?.map_or(self.index.len(), |second| self.before(second + 1));
        let newer_than = place("ending_before")?;
        let older_than = place("starting_after")?;
        let all = low.max(newer_than.map_or(0, |at| at + 1))..high.min(older_than.unwrap_or(high));
        let page = match newer_than {
            Some(_) => all.start..all.end.min(all.start + limit),
            None => all.start.max(all.end.saturating_sub(limit))..all.end,
        };
        let has_more = page.len() < all.len();
        Ok((page.rev().map(|at| self.object(at)).collect(), has_more))
    }

    /// The objects that name this id.
    fn about(&self, id: &str) -> Vec<String> {
        let Some(round) = round_of(id) else {
            return Vec::new();
        };
        let told = self
            .sketches
            .iter()
            .map(|sketch| sketch.told(round, self.apart));
        told.filter(|text| text.contains(id)).collect()
    }

    fn object(&self, at: usize) -> String {
        let (_, round, place) = self.index[at];
        self.sketches[place].told(round, self.apart)
    }

    /// Where an object is in the index.
    fn find(&self, id: &str) -> Option<usize> {
        let is_it = |sketch: &Sketch| match id.strip_prefix(&sketch.id) {
            Some(rest) => rest.len() == if sketch.shared { 0 } else { DIGITS },
            None => false,
        };
        let place = self.sketches.iter().position(is_it)?;
        let sketch = &self.sketches[place];
        let round = if sketch.shared { 0 } else { round_of(id)? };
        self.index
            .binary_search(&(sketch.at(round, self.apart), round, place))
            .ok()
    }

    /// How many objects were created before this second.
    fn before(&self, second: i64) -> usize {
        self.index
            .partition_point(|(created, ..)| *created < second)
    }
}

impl Sketch {
    /// When its object of a round was created.
    fn at(&self, round: u32, apart: i64) -> i64 {
        self.created + i64::from(round) * apart
    }

    /// Its object of a round.
    fn told(&self, round: u32, apart: i64) -> String {
        let mut told = String::with_capacity(self.text.len() + 64);
        let mut rest = self.text.as_str();
        while let Some(mark) = rest.find([ROUND, MOMENT]) {
            told.push_str(&rest[..mark]);
            let after = &rest[mark + 1..];
            if rest[mark..].starts_with(ROUND) {
                told.push_str(&format!("{round:0DIGITS$}"));
                rest = after;
            } else {
                let end = after
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(after.len());
                let moment: i64 = after[..end].parse().unwrap_or_default();
                told.push_str(&(moment + i64::from(round) * apart).to_string());
                rest = &after[end..];
            }
        }
        told.push_str(rest);
        told
    }
}

fn round_of(id: &str) -> Option<u32> {
    id.get(id.len().checked_sub(DIGITS)?..)?.parse().ok()
}
