//! `traceparent` as W3C's Trace Context defines it: what is read, what is refused, what is written.

use proptest::prelude::*;
use resilience_core::context::Traceparent;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

#[test]
fn the_specifications_examples_are_read_and_written_back() {
    for (flags, sampled) in [("00", false), ("01", true)] {
        let text = format!("00-{TRACE}-{SPAN}-{flags}");
        let place: Traceparent = text.parse().unwrap();
        assert_eq!((place.is_sampled(), place.to_string()), (sampled, text));
        assert_eq!(Traceparent::new(place.trace_id(), place.span_id(), sampled), Some(place));
    }
}

#[test]
fn later_versions_are_read_as_far_as_they_are_known() {
    let place: Traceparent = format!("cc-{TRACE}-{SPAN}-03-what-the-future-brings").parse().unwrap();
    assert_eq!(place.to_string(), format!("00-{TRACE}-{SPAN}-01"));
}

#[test]
fn what_the_specification_forbids_is_refused() {
    let zeros = "0".repeat(32);
    for bad in [
        String::new(),
        "-".into(),
        "00---".into(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("0-{TRACE}-{SPAN}-01"),
        format!("00-{zeros}-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &zeros[..16]),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-+{}-{SPAN}-01", &TRACE[1..]),
        format!(" 00-{TRACE}-{SPAN}-01"),
    ] {
        let error = bad.parse::<Traceparent>().expect_err(&bad);
        assert!(error.to_string().contains("is not a traceparent; allowed: "), "{error}");
    }
    assert_eq!((Traceparent::new(0, 1, true), Traceparent::new(1, 0, true)), (None, None));
}

proptest! {
    #[test]
    fn every_place_survives_being_written_and_read(trace in 1_u128.., span in 1_u64.., sampled: bool) {
        let place = Traceparent::new(trace, span, sampled).unwrap();
        prop_assert_eq!(place.to_string().parse(), Ok(place));
    }

    #[test]
    fn no_text_makes_reading_panic(text in ".*") {
        let _ = text.parse::<Traceparent>();
    }

    #[test]
    fn nothing_near_a_traceparent_makes_reading_panic(
        text in "[0-9a-fé]{1,3}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f-]{0,4}",
    ) {
        if let Ok(place) = text.parse::<Traceparent>() {
            prop_assert_eq!(&place.to_string()[3..52], &text[3..52]);
        }
    }
}
