//! Reading a whole list, the oldest objects first.
//!
//! Stripe lists the newest first. Who applies a list in that order ends with the state of long ago:
//! a team back on the subscription that it cancelled. And whatever is created while the list is
//! read is missed. So the oldest page is searched first, by halving the time in which it may lie,
//! and from there `ending_before` leads page by page to the newest, those included that are created
//! on the way. A list that fits one page is one request; of a hundred thousand objects the oldest
//! hundred are found in about ten.
//!
//! <https://docs.stripe.com/api/pagination>

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How many objects a page has, at most: Stripe's own limit.
const PAGE: u32 = 100;

/// Where the search begins: Stripe is no older. An object that claims to be is found all the same.
const EPOCH: i64 = 1_262_304_000;

/// How far a list has been read. Kept as JSON between one page and the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// Objects created before this second are not wanted.
    since: Option<i64>,
    /// How many objects to ask for at once.
    limit: u32,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// Nothing was asked yet.
    Start,
    /// The oldest object was created between these two seconds; those until `at` are looked at.
    Search { low: i64, high: i64, at: i64 },
    /// More objects than fit a page were created in this second, the oldest in the list: it is
    /// followed to its end.
    Crowd { second: i64, after: String },
    /// This object, created in this second, and everything older was shown.
    After { id: String, second: i64 },
    /// Everything was shown.
    End,
}

/// A page of a list, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The objects, the newest first.
    pub data: Vec<Map<String, Value>>,
    /// Whether there is more in the direction in which the list is read.
    pub has_more: bool,
}

impl Page {
    /// Reads an answer; None if it is no list of objects.
    pub fn of(answer: Value) -> Option<Page> {
        let Value::Object(mut answer) = answer else {
            return None;
        };
        let has_more = answer.get("has_more")?.as_bool()?;
        let Value::Array(data) = answer.remove("data")? else {
            return None;
        };
        let objects = data.into_iter().map(|object| match object {
            Value::Object(object) => Some(object),
            _ => None,
        });
        Some(Page {
            data: objects.collect::<Option<_>>()?,
            has_more,
        })
    }
}

impl Default for Walk {
    fn default() -> Self {
        Self::since(None)
    }
}

impl Walk {
    /// A walk over the objects created in this second or later, or over all.
    pub fn since(since: Option<i64>) -> Self {
        Self {
            since,
            limit: PAGE,
            place: Place::Start,
        }
    }

    /// Whether everything was shown.
    pub fn is_over(&self) -> bool {
        self.place == Place::End
    }

    /// The parameters of the next request.
    pub fn parameters(&self) -> Map<String, Value> {
        let mut parameters = Map::new();
        let mut created = Map::new();
        let mut set = |name: &str, value: &str| parameters.insert(name.to_owned(), value.into());
        if let Some(since) = self.since {
            created.insert("gte".to_owned(), since.into());
        }
        match &self.place {
            Place::Start | Place::End => {}
            Place::Search { at, .. } => drop(created.insert("lte".to_owned(), (*at).into())),
            Place::Crowd { second, after } => {
                created.insert("lte".to_owned(), (*second).into());
                set("starting_after", after);
            }
            Place::After { id, .. } => drop(set("ending_before", id)),
        }
        if !created.is_empty() {
            parameters.insert("created".to_owned(), created.into());
        }
        parameters.insert("limit".to_owned(), json!(self.limit));
        parameters
    }

    /// Takes the answer to the next request, and gives back the objects to apply, the oldest first:
    /// none while the oldest page is still searched.
    pub fn take(&mut self, page: Page) -> Vec<Map<String, Value>> {
        let (Some(newest), Some(oldest)) = (
            page.data.first().and_then(Seen::of),
            page.data.last().and_then(Seen::of),
        ) else {
            self.place = self.past_nothing();
            return Vec::new();
        };
        let (place, is_shown) = match &self.place {
            Place::Start if page.has_more => (self.search(EPOCH, oldest.second), false),
            Place::Search { low, at, .. } if page.has_more => {
                let is_crowd = oldest.second == *at && low == at;
                let place = match is_crowd {
                    true => oldest.crowd(),
                    false => self.search(*low, oldest.second),
                };
                (place, false)
            }
            Place::Crowd { .. } if page.has_more => (oldest.crowd(), false),
            Place::After { .. } if page.has_more => (newest.after(), true),
            Place::Search { .. } | Place::Crowd { .. } => (newest.after(), true),
            Place::Start | Place::After { .. } | Place::End => (Place::End, true),
        };
        self.place = place;
        match is_shown {
            true => page.data.into_iter().rev().collect(),
            false => Vec::new(),
        }
    }

    /// Where to go on after an empty page.
    fn past_nothing(&self) -> Place {
        match self.place {
            Place::Search { high, at, .. } if at < high => self.search(at + 1, high),
            // What was there a moment ago is deleted: the search begins again.
            Place::Search { .. } | Place::Crowd { .. } => Place::Start,
            Place::Start | Place::After { .. } | Place::End => Place::End,
        }
    }

    /// Goes on after this object, and not after the newest that was shown: when only some of a page
    /// could be applied.
    pub fn resume_after(&mut self, object: &Map<String, Value>) {
        if let Some(seen) = Seen::of(object) {
            self.place = seen.after();
        }
    }

    /// The object from which to go on is gone, and Stripe does not know any more where it was. What
    /// was created in its second and later is shown again. False if there is no such object.
    pub fn lose_place(&mut self) -> bool {
        match self.place {
            Place::After { second, .. } => self.since = self.since.max(Some(second)),
            Place::Crowd { .. } => {}
            Place::Start | Place::Search { .. } | Place::End => return false,
        }
        self.place = Place::Start;
        true
    }

    /// Asks for fewer objects at once, after an answer that was too large. False if it cannot.
    pub fn ask_for_less(&mut self) -> bool {
        let before = self.limit;
        self.limit = (before / 5).max(1);
        self.limit < before
    }

    fn search(&self, low: i64, high: i64) -> Place {
        let low = self.since.unwrap_or(low).max(low).min(high);
        Place::Search {
            low,
            high,
            at: low + (high - low) / 2,
        }
    }
}

/// An object of a page, as far as walking needs it.
struct Seen {
    id: String,
    second: i64,
}

impl Seen {
    fn of(object: &Map<String, Value>) -> Option<Seen> {
        Some(Seen {
            id: object.get("id")?.as_str()?.to_owned(),
            second: object.get("created")?.as_i64()?,
        })
    }

    fn after(self) -> Place {
        Place::After {
            id: self.id,
            second: self.second,
        }
    }

    fn crowd(self) -> Place {
        Place::Crowd {
            second: self.second,
            after: self.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list at Stripe: seconds and ids, the oldest first.
    #[derive(Clone, Debug, Default)]
    struct Account(Vec<(i64, String)>);

    impl Account {
        fn create(&mut self, second: i64, id: impl ToString) {
            self.0.push((second, id.to_string()));
            self.0.sort_by_key(|(second, _)| *second);
        }

        /// None: Stripe does not know the object that the parameters name.
        fn page(&self, parameters: &Map<String, Value>) -> Option<Page> {
            let bound = |name: &str| parameters.get("created")?.get(name)?.as_i64();
            let wanted: Vec<_> = self
                .0
                .iter()
                .filter(|(second, _)| bound("gte").is_none_or(|gte| *second >= gte))
                .filter(|(second, _)| bound("lte").is_none_or(|lte| *second <= lte))
                .collect();
            let limit = parameters["limit"].as_u64()? as usize;
            let place = |name: &str| -> Option<Option<usize>> {
                let Some(id) = parameters.get(name) else {
                    return Some(None);
                };
                Some(Some(wanted.iter().position(|(_, known)| known == id)?))
            };
            let (start, end) = match (place("ending_before")?, place("starting_after")?) {
                (Some(before), _) => (before + 1, (before + 1 + limit).min(wanted.len())),
                (_, Some(after)) => (after.saturating_sub(limit), after),
                _ => (wanted.len().saturating_sub(limit), wanted.len()),
            };
            let has_more = match parameters.contains_key("ending_before") {
                true => end < wanted.len(),
                false => start > 0,
            };
            let data = wanted[start..end].iter().rev().map(|(second, id)| {
                let object = json!({"id": id, "created": second});
                object.as_object().cloned().unwrap_or_default()
            });
            Some(Page {
                data: data.collect(),
                has_more,
            })
        }
    }

    fn ids(objects: &[Map<String, Value>]) -> Vec<String> {
        let ids = objects.iter().filter_map(|object| object["id"].as_str());
        ids.map(str::to_owned).collect()
    }

    /// The ids shown by each request, with `meanwhile` happening after every one.
    fn walked(
        mut walk: Walk,
        account: &mut Account,
        mut meanwhile: impl FnMut(&mut Account),
    ) -> Vec<Vec<String>> {
        let mut shown = Vec::new();
        while !walk.is_over() {
            assert!(shown.len() < 3000, "it does not end: {walk:?}");
            let kept = serde_json::to_string(&walk).expect("JSON");
            walk = serde_json::from_str(&kept).expect("what was kept");
            match account.page(&walk.parameters()) {
                Some(page) => shown.push(ids(&walk.take(page))),
                None => assert!(walk.lose_place()),
            }
            meanwhile(account);
        }
        shown
    }

    fn spread(count: i64, apart: i64) -> Account {
        let mut account = Account::default();
        for number in 0..count {
            account.create(1_600_000_000 + number * apart, number);
        }
        account
    }

    #[test]
    fn a_list_of_one_page_is_one_request() {
        let mut account = spread(100, 10);
        let shown = walked(Walk::default(), &mut account, |_| {});
        assert_eq!(shown, [(0..100).map(|n| n.to_string()).collect::<Vec<_>>()]);
        assert_eq!(
            walked(Walk::default(), &mut Account::default(), |_| {}),
            [[""; 0]]
        );
    }

    #[test]
    fn the_oldest_of_many_is_found_soon() {
        let mut account = spread(20_000, 1_000);
        let shown = walked(Walk::default(), &mut account, |_| {});
        let searching = shown.iter().take_while(|page| page.is_empty()).count();
        assert!(searching < 15, "{searching} requests before the first page");
        assert!(shown.len() < 230, "{} requests", shown.len());
        let all: Vec<_> = (0..20_000).map(|n| n.to_string()).collect();
        assert_eq!(shown.concat(), all);
    }

    #[test]
    fn a_second_may_hold_many_pages() {
        let mut account = spread(1_234, 0);
        account.create(1_700_000_000, "last");
        let shown = walked(Walk::default(), &mut account, |_| {}).concat();
        assert_eq!(shown.len(), 1_235);
        assert_eq!(shown.last().map(String::as_str), Some("last"));
    }

    #[test]
    fn what_is_created_on_the_way_is_shown() {
        let mut account = spread(500, 100);
        let mut born = 0;
        let shown = walked(Walk::default(), &mut account, |account| {
            if born < 40 {
                born += 1;
                account.create(1_700_000_000 + born, 1_000 + born);
            }
        });
        // The last request was answered before the last birth.
        assert!(shown.concat().len() >= 500 + shown.len() - 1);
    }

    #[test]
    fn less_is_asked_for_down_to_one() {
        let mut walk = Walk::default();
        assert!(walk.ask_for_less());
        assert_eq!(walk.parameters()["limit"], 20);
        assert!(walk.ask_for_less() && walk.ask_for_less() && !walk.ask_for_less());
        assert_eq!(walk.parameters()["limit"], 1);
    }

    #[test]
    fn it_goes_on_after_the_object_that_was_applied_last() {
        let mut account = spread(150, 100);
        let mut walk = Walk::default();
        let mut seen = Vec::new();
        while !walk.is_over() {
            let page = account.page(&walk.parameters()).expect("a page");
            let shown = walk.take(page);
            if let Some(first) = shown.first() {
                walk.resume_after(first);
                seen.push(first["id"].as_str().map(str::to_owned).unwrap_or_default());
            }
            if seen.len() == 5 {
                break;
            }
        }
        account.0.clear();
        assert_eq!(seen, ["0", "1", "2", "3", "4"]);
    }

    proptest! {
        #[test]
        fn whatever_stays_is_shown_and_the_oldest_first(
            seconds in prop::collection::vec(1_000_000_000..1_000_000_400_i64, 0..700),
            deleted in prop::collection::hash_set(0..700_usize, 0..60),
            since in prop::option::of(1_000_000_000..1_000_000_400_i64),
        ) {
            let mut account = Account::default();
            for (number, second) in seconds.iter().enumerate() {
                account.create(*second, number);
            }
            let all = account.clone();
            let mut doomed = deleted.iter();
            let shown = walked(Walk::since(since), &mut account, |account| {
                if let Some(id) = doomed.next() {
                    account.0.retain(|(_, known)| *known != id.to_string());
                }
            });
            let second_of = |id: &String| all.0.iter().find(|(_, known)| known == id).map(|(second, _)| *second);
            let times: Vec<_> = shown.concat().iter().filter_map(second_of).collect();
            // What is shown again, because the place was lost, is of one second.
            prop_assert!(times.is_sorted());
            let shown = shown.concat();
            for (second, id) in &account.0 {
                prop_assert!(since.is_some_and(|since| *second < since) || shown.contains(id), "{} is missing", id);
            }
        }
    }
}
