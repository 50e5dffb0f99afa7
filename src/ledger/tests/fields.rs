//! What is stored of a body is what a parser would have written.

mod world;

use ledger::{Fields, Key, Mirrored, Observation, Source};
use payments_ledger as ledger;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use world::{SHAPES, lives};

/// Every field parsed and written again, as it was done before there were [`Fields`].
fn canonical(json: &str) -> Result<String, String> {
    let map: Map<String, Value> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok(serde_json::to_string(&map).expect("it was just read"))
}

/// Whichever way a text is read, it comes out as a parser would write it, and is what it was.
fn is_kept(json: &str) {
    let fields = Fields::parse(json).map_err(|error| error.to_string());
    let text = fields.as_ref().map(|fields| fields.text().to_owned());
    assert_eq!(text.map_err(String::clone), canonical(json));
    let Ok(fields) = fields else { return };
    let parsed = |json: &str| -> Map<String, Value> {
        serde_json::from_str(json).expect("it was just read")
    };
    assert_eq!(Fields::from(parsed(json)), fields);
    // Of the text, as whoever reads it back: the parser can round a float that it wrote itself.
    let map = parsed(fields.text());
    assert_eq!(fields.to_map(), map);
    assert!(
        map.iter()
            .all(|(name, value)| fields.get(name) == Some(value))
    );
}

#[test]
fn every_body_is_kept_as_a_parser_would_write_it() {
    for (_, _, world) in lives::all() {
        for happening in &world.told {
            for shape in SHAPES {
                let body = happening.event("evt_1", shape).body;
                let map = body.to_map();
                is_kept(body.text());
                is_kept(&serde_json::to_string_pretty(&map).expect("it was just read"));
                let observation = Observation::new(map.clone(), 10, Source::Listing);
                let stored = Mirrored::of(observation.expect("a key")).to_stored();
                assert_eq!(Ok(stored.body), canonical(body.text()));
            }
        }
    }
}

#[test]
fn what_is_spelled_otherwise_is_written_anew() {
    for json in [
        "{}",
        " { } ",
        r#"{"b":1,"a":2}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":{"b":1,"b":2},"a":{"c":1}}"#,
        r#"{"\u0061":1,"b":2}"#,
        r#"{"a\"":1,"a#":2,"a":3}"#,
        r#"{"a\u0000":"\u0000","é":"\u00e9\/"}"#,
        r#"{"a":0,"b":-0,"c":-0.0,"d":1.0,"e":1e3,"f":1E+2,"g":0.10,"h":1e-9}"#,
        r#"{"a":18446744073709551615,"b":18446744073709551616,"c":-9223372036854775809}"#,
        r#"{"a":123456789012345678,"b":1234567890123456789,"c":-999999999999999999}"#,
        r#"{"a":[ 1.50 , { "c" : null , "b" : "\u0062" } ],"b":"\ud83d\ude00"}"#,
        "{\"a\":\"\u{7f}\u{2028}\"}",
        r#"{"a":[],"b":{},"c":[[],[{}],""],"d":",","e":[","]}"#,
        r#"{"b":{"d":{"f":1,"e":2},"c":[{"b":1,"a":2},{"b":{"b":1,"a":2},"b":[]}]},"a":{"b":3,"a":4}}"#,
        r#"{"\"":1,"b":{"\u0062":1,"\u0061":{"é":1,"e\"":2}},"a":2}"#,
        r#"{"a":1e400}"#,
        r#"{"a":1e400,"a":1}"#,
        r#"{"a":{"b":[1e400]}}"#,
        r#"{"a":"\ud83d"}"#,
        r#"{"a":1}}"#,
        r#"{"a":1"#,
        r#"{"a":01}"#,
        "[]",
        "",
        "null",
    ] {
        is_kept(json);
    }
}

#[test]
fn no_name_is_serde_jsons_own() {
    let json = r#"{"metadata":{"$serde_json::private::RawValue":"{"}}"#;
    assert_eq!(Fields::parse(json).expect("an object").text(), json);
}

#[test]
fn what_is_deeper_than_a_parser_goes_is_refused() {
    for levels in [126, 127, 128, 200_000] {
        is_kept(&format!(
            r#"{{"a":{}{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        ));
    }
}

#[test]
fn a_row_that_somebody_edited_can_be_read() {
    let key = Key {
        object_type: "product".into(),
        id: "prod_1".into(),
    };
    let body = json!({"id": "prod_1", "object": "product", "created": 1, "metadata": {"a": "b"}});
    let observation = Observation::new(
        body.as_object().cloned().expect("an object"),
        10,
        Source::Listing,
    );
    let mirrored = Mirrored::of(observation.expect("a key"));
    let stored = mirrored.to_stored();
    for edited in [
        r#"{"id": "prod_1", "created": 1, "object": "product", "metadata": {"a": "b"}}"#,
        r#"{"id":"prod_1","created":1,"metadata":{"a":"b"},"object":"product"}"#,
        r#"{"created":1,"\u0069d":"prod_1","metadata":{"a":"b"},"object":"product"}"#,
        r#"{"created":2,"created":1,"id":"prod_1","metadata":{"a":"b"},"object":"product"}"#,
    ] {
        let edited = ledger::Stored {
            body: edited.into(),
            ..stored.clone()
        };
        let read = Mirrored::from_stored(key.clone(), edited).expect("JSON");
        assert_eq!(read, mirrored);
        assert_eq!(read.to_stored(), stored);
    }
    for unreadable in [
        "",
        "[]",
        r#"{"id": "prod_1""#,
        r#"{"a":1}x"#,
        r#"{"a": 1e400}"#,
    ] {
        let edited = ledger::Stored {
            body: unreadable.into(),
            ..stored.clone()
        };
        assert!(Mirrored::from_stored(key.clone(), edited).is_err());
    }
}

#[test]
fn a_number_beyond_rusts_in_a_row_says_nothing() {
    let key = Key {
        object_type: "product".into(),
        id: "prod_1".into(),
    };
    let stored = ledger::Stored {
        body: r#"{"created":1,"id":"prod_1","metadata":{"a":1e400},"object":"product"}"#.into(),
        as_of: 10,
        deleted: false,
        evidence: None,
    };
    let read = Mirrored::from_stored(key, stored.clone()).expect("JSON");
    assert_eq!(read.object().body["metadata"], Value::Null);
    assert_eq!(read.to_stored(), stored);
}

/// Any value, as text that may be spelled in many ways.
fn text() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        Just(r#""\u0041\/\u0000""#.to_owned()),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
    ];
    let word = prop_oneof![Just("null"), Just("true"), Just("false")];
    let scalar = prop_oneof![string, number, word.prop_map(str::to_owned)];
    let space = || prop_oneof![3 => Just(""), 1 => Just(" "), 1 => Just("\n  ")];
    scalar.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), space())
                .prop_map(|(values, space)| format!("[{}]", values.join(&format!(",{space}")))),
            object(inner, space().boxed()),
        ]
    })
}

fn object(
    value: impl Strategy<Value = String>,
    space: impl Strategy<Value = &'static str>,
) -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => "[a-c_]{1,2}".prop_map(|name| format!("\"{name}\"")),
        // Those that begin alike.
        2 => "payment(_method(_details|_options)?|_intent)?\0?".prop_map(|name| Value::from(name).to_string()),
        1 => any::<String>().prop_map(|name| Value::from(name).to_string()),
        1 => Just(r#""\u0061""#.to_owned()),
    ];
    (vec((name, value), 0..5), space).prop_map(|(members, space)| {
        let members = members
            .iter()
            .map(|(name, value)| format!("{name}:{space}{value}"));
        let members: Vec<_> = members.collect();
        format!("{{{space}{}}}", members.join(&format!("{space},")))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_object_is_kept_as_a_parser_would_write_it(json in object(text(), Just(" "))) {
        is_kept(&json);
    }

    #[test]
    fn any_observation_is_stored_as_a_parser_would_write_it(
        fields in btree_map("[a-h]{1,3}", text(), 0..8),
    ) {
        let mut json = String::from(r#"{"id": "x_1","object": "product""#);
        for (name, value) in &fields {
            json.push_str(&format!(", {}: {value}", Value::from(name.as_str())));
        }
        json.push('}');
        if let (Ok(fields), Ok(expected)) = (Fields::parse(&json), canonical(&json)) {
            let observation = Observation::new(fields, 10, Source::Listing);
            let mirrored = Mirrored::of(observation.expect("a key"));
            let stored = mirrored.to_stored();
            prop_assert_eq!(&stored.body, &expected);
            let read = Mirrored::from_stored(mirrored.key().clone(), stored.clone());
            prop_assert_eq!(read.expect("what was stored can be read"), mirrored);
        }
    }
}
