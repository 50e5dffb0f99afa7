//! Customer portal sessions. <https://docs.stripe.com/api/customer_portal/sessions/create>

use serde_json::{Value, json};

use crate::ids::Kind;
use crate::input::{self, Invalid, Object};
use crate::subject::Subject;

/// The arguments of `create_customer_portal_session`, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    pub subject: &'a Value,
    pub return_url: Option<&'a str>,
    pub configuration: Option<&'a str>,
    pub flow: Option<&'a Value>,
}

/// A checked request for a portal session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub subject: Subject,
    pub return_url: Option<String>,
    /// `bpc_…`
    pub configuration: Option<String>,
    pub flow: Option<Flow>,
}

/// One thing to do in the portal, instead of its home page.
/// <https://docs.stripe.com/customer-management/portal-deep-links>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub kind: FlowKind,
    /// `sub_…`, if the caller named one.
    pub subscription: Option<String>,
    pub after_completion: Option<AfterCompletion>,
}

/// What a flow does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    PaymentMethodUpdate,
    SubscriptionCancel,
    SubscriptionUpdate,
}

/// Where a flow ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterCompletion {
    PortalHomepage,
    HostedConfirmation { custom_message: Option<String> },
    Redirect { return_url: String },
}

impl FlowKind {
    const ALL: [Self; 3] = [
        Self::PaymentMethodUpdate,
        Self::SubscriptionCancel,
        Self::SubscriptionUpdate,
    ];

    /// Stripe's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PaymentMethodUpdate => "payment_method_update",
            Self::SubscriptionCancel => "subscription_cancel",
            Self::SubscriptionUpdate => "subscription_update",
        }
    }

    fn is_about_a_subscription(self) -> bool {
        self != Self::PaymentMethodUpdate
    }
}

impl Request {
    /// Checks the arguments.
    ///
    /// # Errors
    /// The first argument that cannot be used.
    pub fn parse(arguments: Arguments) -> Result<Self, Invalid> {
        let url = |text| input::url("return_url", "return_url", text);
        let configuration = arguments.configuration.map(|id| {
            let id = Kind::PortalConfiguration
                .check(id.trim())
                .map(str::to_owned);
            id.map_err(|error| Invalid::new("configuration", format!("configuration is {error}")))
        });
        Ok(Self {
            subject: Subject::parse("subject", arguments.subject)?,
            return_url: arguments.return_url.map(url).transpose()?,
            configuration: configuration.transpose()?,
            flow: arguments.flow.map(Flow::parse).transpose()?,
        })
    }

    /// Where the caller has buyers sent, by argument.
    pub fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let after = self
            .flow
            .as_ref()
            .and_then(|flow| flow.after_completion.as_ref());
        let after = match after {
            Some(AfterCompletion::Redirect { return_url }) => Some(return_url),
            _ => None,
        };
        let own = self
            .return_url
            .iter()
            .map(|url| ("return_url", url.as_str()));
        own.chain(after.map(|url| ("flow", url.as_str())))
    }

    /// Whether the flow is about a subscription and the caller left open which.
    pub fn needs_subscription(&self) -> bool {
        self.flow
            .as_ref()
            .is_some_and(|flow| flow.kind.is_about_a_subscription() && flow.subscription.is_none())
    }

    /// The parameters of `POST /v1/billing_portal/sessions` for a customer. `subscription` is what
    /// the flow is about where [`Request::needs_subscription`].
    pub fn session_parameters(&self, customer: &str, subscription: Option<&str>) -> Value {
        let mut parameters = json!({ input::customer_parameter(customer): customer });
        if let Some(return_url) = &self.return_url {
            parameters["return_url"] = json!(return_url);
        }
        if let Some(configuration) = &self.configuration {
            parameters["configuration"] = json!(configuration);
        }
        if let Some(flow) = &self.flow {
            parameters["flow_data"] = flow.parameters(subscription);
        }
        parameters
    }
}

impl Flow {
    fn parse(value: &Value) -> Result<Self, Invalid> {
        let known = ["type", "subscription", "after_completion"];
        let flow = Object::read("flow", "flow", value, &known)?;
        let kind = flow.text("type")?;
        let kind = flow.required("type", kind)?;
        let kind = FlowKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind);
        let kind = kind.ok_or_else(|| {
            let names = FlowKind::ALL.map(FlowKind::as_str).join(", ");
            flow.invalid("type", &format!("must be one of {names}"))
        })?;
        let subscription = flow
            .text("subscription")?
            .map(|id| Kind::Subscription.check(id));
        let subscription = subscription.transpose();
        let subscription =
            subscription.map_err(|error| flow.invalid("subscription", &format!("is {error}")))?;
        if subscription.is_some() && !kind.is_about_a_subscription() {
            let what = format!("does not go with {}", kind.as_str());
            return Err(flow.invalid("subscription", &what));
        }
        let after_completion = flow
            .get("after_completion")
            .map(|value| AfterCompletion::parse(flow.path_to("after_completion"), value));
        Ok(Self {
            kind,
            subscription: subscription.map(str::to_owned),
            after_completion: after_completion.transpose()?,
        })
    }

    fn parameters(&self, subscription: Option<&str>) -> Value {
        let kind = self.kind.as_str();
        let mut parameters = json!({ "type": kind });
        if let Some(subscription) = self.subscription.as_deref().or(subscription)
            && self.kind.is_about_a_subscription()
        {
            parameters[kind] = json!({ "subscription": subscription });
        }
        if let Some(after_completion) = &self.after_completion {
            parameters["after_completion"] = after_completion.parameters();
        }
        parameters
    }
}

impl AfterCompletion {
    fn parse(path: String, value: &Value) -> Result<Self, Invalid> {
        let known = ["type", "redirect", "hosted_confirmation"];
        let after = Object::read("flow", path, value, &known)?;
        let kind = after.text("type")?;
        let kind = after.required("type", kind)?;
        for other in ["redirect", "hosted_confirmation"] {
            if other != kind && after.get(other).is_some() {
                return Err(after.invalid(other, &format!("does not go with the type {kind}")));
            }
        }
        let details = |known| {
            let value = after.get(kind);
            let details =
                value.map(|value| Object::read("flow", after.path_to(kind), value, known));
            details.transpose()
        };
        match kind {
            "portal_homepage" => Ok(Self::PortalHomepage),
            "hosted_confirmation" => {
                let details = details(&["custom_message"])?;
                let message = details.map(|details| details.text_up_to("custom_message", 500));
                let custom_message = message.transpose()?.flatten().map(str::to_owned);
                Ok(Self::HostedConfirmation { custom_message })
            }
            "redirect" => {
                let details = after.required("redirect", details(&["return_url"])?)?;
                let return_url = details.text("return_url")?;
                let return_url = details.required("return_url", return_url)?;
                let return_url = input::url("flow", &details.path_to("return_url"), return_url)?;
                Ok(Self::Redirect { return_url })
            }
            _ => Err(after.invalid(
                "type",
                "must be one of portal_homepage, hosted_confirmation, redirect",
            )),
        }
    }

    fn parameters(&self) -> Value {
        match self {
            Self::PortalHomepage => json!({"type": "portal_homepage"}),
            Self::HostedConfirmation {
                custom_message: None,
            } => {
                json!({"type": "hosted_confirmation"})
            }
            Self::HostedConfirmation {
                custom_message: Some(message),
            } => json!({
                "type": "hosted_confirmation",
                "hosted_confirmation": {"custom_message": message},
            }),
            Self::Redirect { return_url } => {
                json!({"type": "redirect", "redirect": {"return_url": return_url}})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        return_url: Option<&str>,
        configuration: Option<&str>,
        flow: Option<Value>,
    ) -> Result<Request, (&'static str, String)> {
        Request::parse(Arguments {
            subject: &json!({"type": "team", "id": "7"}),
            return_url,
            configuration,
            flow: flow.as_ref(),
        })
        .map_err(|invalid| (invalid.argument, invalid.message))
    }

    fn flow_data(flow: Value, subscription: Option<&str>) -> Value {
        let request = parse(None, None, Some(flow)).expect("a request");
        request.session_parameters("cus_1", subscription)["flow_data"].clone()
    }

    #[test]
    fn the_home_page_needs_a_customer_only() {
        let request = parse(None, None, None).expect("a request");
        assert!(!request.needs_subscription());
        assert_eq!(
            request.session_parameters("cus_1", None),
            json!({"customer": "cus_1"})
        );
        let account = request.session_parameters("acct_1", None);
        assert_eq!(account, json!({"customer_account": "acct_1"}));
    }

    #[test]
    fn everything_is_passed_on() {
        let request = parse(
            Some("https://a.example/"),
            Some("bpc_1"),
            Some(json!({"type": "payment_method_update"})),
        );
        assert_eq!(
            request
                .expect("a request")
                .session_parameters("cus_1", None),
            json!({
                "customer": "cus_1",
                "return_url": "https://a.example/",
                "configuration": "bpc_1",
                "flow_data": {"type": "payment_method_update"},
            })
        );
    }

    #[test]
    fn a_subscription_is_named_or_filled_in() {
        for kind in ["subscription_cancel", "subscription_update"] {
            let open = parse(None, None, Some(json!({"type": kind}))).expect("a request");
            assert!(open.needs_subscription());
            let named = json!({"type": kind, "subscription": "sub_1"});
            let named = parse(None, None, Some(named)).expect("a request");
            assert!(!named.needs_subscription());
            let data = json!({"type": kind, kind: {"subscription": "sub_1"}});
            assert_eq!(
                open.session_parameters("cus_1", Some("sub_1"))["flow_data"],
                data
            );
            assert_eq!(named.session_parameters("cus_1", None)["flow_data"], data);
        }
    }

    #[test]
    fn a_subscription_that_a_flow_is_not_about_is_left_out() {
        let flow = json!({"type": "payment_method_update"});
        assert_eq!(flow_data(flow.clone(), Some("sub_1")), flow);
    }

    #[test]
    fn every_end_is_taken_in_both_spellings() {
        let kind = "payment_method_update";
        for (after, parameters) in [
            (
                json!({"type": "portal_homepage"}),
                json!({"type": "portal_homepage"}),
            ),
            (
                json!({"type": "hosted_confirmation"}),
                json!({"type": "hosted_confirmation"}),
            ),
            (
                json!({"type": "hosted_confirmation", "hostedConfirmation": {"customMessage": "Bye"}}),
                json!({"type": "hosted_confirmation", "hosted_confirmation": {"custom_message": "Bye"}}),
            ),
            (
                json!({"type": "redirect", "redirect": {"returnUrl": "https://a.example/"}}),
                json!({"type": "redirect", "redirect": {"return_url": "https://a.example/"}}),
            ),
        ] {
            assert_eq!(
                flow_data(json!({"type": kind, "afterCompletion": after}), None),
                json!({"type": kind, "after_completion": parameters})
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(
            parse(Some("/account"), None, None),
            Err((
                "return_url",
                "return_url must be an absolute http or https URL".into()
            ))
        );
        assert_eq!(
            parse(None, Some("cus_1"), None),
            Err((
                "configuration",
                "configuration is not a Stripe portal configuration id (bpc_…)".into()
            ))
        );
        let after =
            |value: Value| json!({"type": "payment_method_update", "after_completion": value});
        for (flow, message) in [
            (json!([]), "flow must be a JSON object"),
            (json!({}), "flow.type is missing"),
            (
                json!({"type": "cancel"}),
                "flow.type must be one of payment_method_update, subscription_cancel, subscription_update",
            ),
            (
                json!({"type": "subscription_cancel", "subscriptionId": "sub_1"}),
                "flow has an unknown key \"subscriptionId\"",
            ),
            (
                json!({"type": "subscription_cancel", "subscription": "cus_1"}),
                "flow.subscription is not a Stripe subscription id (sub_…)",
            ),
            (
                json!({"type": "payment_method_update", "subscription": "sub_1"}),
                "flow.subscription does not go with payment_method_update",
            ),
            (after(json!({})), "flow.after_completion.type is missing"),
            (
                after(json!({"type": "home"})),
                "flow.after_completion.type must be one of portal_homepage, hosted_confirmation, redirect",
            ),
            (
                after(json!({"type": "redirect"})),
                "flow.after_completion.redirect is missing",
            ),
            (
                after(json!({"type": "redirect", "redirect": {}})),
                "flow.after_completion.redirect.return_url is missing",
            ),
            (
                after(json!({"type": "redirect", "redirect": {"return_url": "/x"}})),
                "flow.after_completion.redirect.return_url must be an absolute http or https URL",
            ),
            (
                after(
                    json!({"type": "portal_homepage", "redirect": {"return_url": "https://a.example/"}}),
                ),
                "flow.after_completion.redirect does not go with the type portal_homepage",
            ),
        ] {
            assert_eq!(parse(None, None, Some(flow)), Err(("flow", message.into())));
        }
    }
}
