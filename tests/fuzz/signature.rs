use std::time::Duration;

use arbitrary::{Result, Unstructured};
use payments_stripe::signature::{sign, verify};

const SECRET: &str = "whsec_test";
const NOW: i64 = 1_700_000_000;

/// Only a header that holds our signature of exactly these bytes is believed, and however it is
/// written it is.
pub fn signature(data: &[u8]) {
    // Too few bytes for a case are one, too.
    let _ = any_header(&mut Unstructured::new(data));
}

fn any_header(u: &mut Unstructured<'_>) -> Result<()> {
    let timestamp = match u.ratio(1, 2)? {
        true => NOW - u.int_in_range(-400..=400)?,
        false => u.arbitrary()?,
    };
    let signed: Vec<u8> = u.arbitrary()?;
    let genuine = sign(&signed, SECRET, timestamp);
    let (t, v1) = genuine.split_once(',').expect("t=…,v1=…");
    let mut items = Vec::new();
    for _ in 0..u.int_in_range(0..=6)? {
        items.push(match u.int_in_range(0..=3)? {
            0 => t.to_owned(),
            1 => v1.to_owned(),
            2 => v1.chars().rev().collect(),
            _ => u.arbitrary::<String>()?,
        });
    }
    let header = items.join(",");
    let payload = match u.ratio(1, 2)? {
        true => signed.clone(),
        false => u.arbitrary()?,
    };
    let tolerance = u.ratio(1, 2)?.then_some(Duration::from_secs(300));
    let secrets = ["whsec_other", SECRET];
    let verified = verify(&payload, &header, &secrets, tolerance, NOW);
    if let Ok(verified) = verified {
        let v1 = v1.trim_start_matches("v1=");
        assert_eq!(verified.secret, 1);
        assert!(header.to_lowercase().contains(v1), "not signed: {header:?}");
        assert!(payload == signed || verified.timestamp != timestamp);
        assert!(tolerance.is_none() || NOW.saturating_sub(verified.timestamp) <= 300);
    }
    let fits = tolerance.is_none() || NOW.saturating_sub(timestamp) <= 300;
    assert_eq!(
        verify(&signed, &genuine, &secrets, tolerance, NOW).is_ok(),
        fits
    );
    assert!(verify(&signed, &genuine, &["whsec_other"], tolerance, NOW).is_err());
    Ok(())
}
