//! Where a URL leads: scheme, host and port. <https://www.rfc-editor.org/rfc/rfc6454>

use std::fmt;

use ureq::http::Uri;

/// An origin, in one spelling: lower case, with the port that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an absolute `http` or `https` URL, as a browser would find it; None for
    /// anything else, and for one that hides its host behind a user name.
    pub fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let is_plain =
            !authority.as_str().contains(['@', '%', '\\']) && !authority.host().is_empty();
        is_plain.then(|| Self {
            scheme,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(default),
        })
    }

    /// An origin that is written as one: nothing follows the host and port.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("://")?;
        match rest.contains(['/', '?', '#']) {
            true => None,
            false => Self::of(text),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        match (scheme.as_str(), port) {
            ("http", 80) | ("https", 443) => write!(f, "{scheme}://{host}"),
            _ => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shop() -> Origin {
        Origin::parse("https://shop.example").expect("an origin")
    }

    #[test]
    fn the_same_origin_is_the_same_however_it_is_spelt() {
        for url in [
            "https://shop.example",
            "https://shop.example/",
            "https://shop.example/thanks?s={CHECKOUT_SESSION_ID}#top",
            "HTTPS://SHOP.Example/",
            "https://shop.example:443/a",
            "https://shop.example#@evil.example/",
            "https://shop.example?@evil.example/",
            "https://shop.example/../..//evil.example",
        ] {
            assert_eq!(Origin::of(url), Some(shop()), "{url}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_another() {
        for url in [
            "http://shop.example/",
            "https://shop.example:444/",
            "https://shop.example:80/",
            "https://shop.example.evil.example/",
            "https://evil.example/shop.example",
            "https://evil.example?https://shop.example",
            "https://evil.example#https://shop.example",
            "https://evilshop.example/",
            "https://www.shop.example/",
            "https://shop.example./",
            "https://shop.example@evil.example/",
            "https://shop.example:443@evil.example/",
            "https://evil.example\\@shop.example/",
            "https://shop.example%2eevil.example/",
            "https://shop.example%00.evil.example/",
            "https://shop%2eexample/",
            "https://ѕhop.example/",
            "https://shop。example/",
            "https://ｓhop.example/",
            "https:shop.example/",
            "https:/shop.example/",
            "https:///shop.example/",
            "https://\tshop.example/",
            "//shop.example/",
            "javascript://shop.example/%0aalert(1)",
            "shop.example",
            "",
        ] {
            assert_ne!(Origin::of(url), Some(shop()), "{url}");
        }
    }

    #[test]
    fn an_origin_is_written_without_a_path() {
        for text in [
            "https://shop.example/",
            "https://shop.example/a",
            "https://shop.example?a",
            "https://*",
        ] {
            let parsed = Origin::parse(text);
            assert!(parsed.is_none() || text == "https://*", "{text}");
        }
        for text in [
            "https://shop.example",
            "http://localhost:3000",
            "http://[::1]:3000",
        ] {
            assert_eq!(
                Origin::parse(text)
                    .map(|origin| origin.to_string())
                    .as_deref(),
                Some(text)
            );
        }
        let spelt = Origin::parse("HTTPS://SHOP.example:443");
        assert_eq!(
            spelt.map(|origin| origin.to_string()).as_deref(),
            Some("https://shop.example")
        );
    }

    proptest! {
        #[test]
        fn a_url_is_of_the_origin_that_it_begins_with(rest in "([/?#].{0,40})?") {
            prop_assume!(Origin::of(&format!("https://shop.example{rest}")).is_some());
            prop_assert_eq!(Origin::of(&format!("https://shop.example{rest}")), Some(shop()));
        }
    }
}
