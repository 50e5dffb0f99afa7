//! Products, prices and customers.

use serde_json::{Value, json};

use super::Host;
use super::objects;
use super::story::Story;
use crate::checkout::Mode;

/// What is sold once costs this, unless the overrides say.
pub(super) const ONCE: i64 = 2000;
const MONTHLY: i64 = 900;

impl<H: Host> Story<'_, H> {
    pub fn new_product(&mut self) -> Result<String, H::Error> {
        let product = self.make("prod", "product", objects::product(self.now));
        self.tell("product.created", &product);
        Ok(product)
    }

    fn any_product(&mut self) -> Result<String, H::Error> {
        match self.existing("product", &[], |_| true)? {
            Some(product) => Ok(product),
            None => self.prologue(Self::new_product),
        }
    }

    pub fn update_product(&mut self) -> Result<(), H::Error> {
        let product = self.any_product()?;
        self.change(&product, json!({ "updated": self.now }));
        self.tell("product.updated", &product);
        Ok(())
    }

    /// Stripe deletes no product that still has prices.
    pub fn delete_product(&mut self) -> Result<(), H::Error> {
        let product = self.any_product()?;
        for price in self.find("price", &[("product", &product)])? {
            self.tell("price.deleted", &price);
        }
        self.tell("product.deleted", &product);
        Ok(())
    }

    pub fn create_price(&mut self) -> Result<(), H::Error> {
        let product = self.any_product()?;
        let recurring = self.wish.mode == Some(Mode::Subscription)
            || self
                .wish
                .fields
                .get("recurring")
                .is_some_and(Value::is_object);
        let amount = self.wish.fields.get("unit_amount").and_then(Value::as_i64);
        let amount = self.wish.amount.or(amount);
        self.new_price(&product, recurring, amount)?;
        Ok(())
    }

    /// A lookup key is one price's: the last to ask for it gets it.
    /// <https://docs.stripe.com/products-prices/manage-prices#lookup-keys>
    fn new_price(
        &mut self,
        product: &str,
        recurring: bool,
        amount: Option<i64>,
    ) -> Result<String, H::Error> {
        let lookup_key = self.wish.lookup_key.clone();
        if let Some(key) = &lookup_key {
            for holder in self.find("price", &[("lookup_key", key)])? {
                self.change(&holder, json!({ "lookup_key": null }));
                self.tell("price.updated", &holder);
            }
        }
        let amount = amount.unwrap_or(if recurring { MONTHLY } else { ONCE });
        let currency = self.wish.currency.clone().unwrap_or_else(|| "usd".into());
        let fields = objects::price(product, amount, &currency, lookup_key.as_deref(), recurring);
        let price = self.make("price", "price", fields);
        self.tell("price.created", &price);
        Ok(price)
    }

    /// The price to sell at: the one that the overrides name, or one that is as they say, or a new
    /// one.
    pub fn price_to_sell_at(&mut self, recurring: bool) -> Result<String, H::Error> {
        let kind = if recurring { "recurring" } else { "one_time" };
        if let Some(price) = self.named("price")? {
            return match self.text(&price, "type") == kind {
                true => Ok(price),
                false => Err(Self::refused(format!("the price {price} is not {kind}"))),
            };
        }
        let (amount, currency) = (self.wish.amount, self.wish.currency.clone());
        let lookup_key = self.wish.lookup_key.clone();
        // Without a name it is known by what it costs.
        let usual = lookup_key
            .is_none()
            .then_some(if recurring { MONTHLY } else { ONCE });
        let amount = amount.or(usual);
        let currency = currency.or(lookup_key.is_none().then(|| "usd".into()));
        let mut fields = vec![("type", kind)];
        if let Some(key) = &lookup_key {
            fields.push(("lookup_key", key));
        }
        let found = self.find("price", &fields)?;
        let fitting = found.into_iter().find(|price| {
            let price = self.see(price);
            price["active"] == true
                && amount.is_none_or(|amount| price["unit_amount"] == amount)
                && currency
                    .as_ref()
                    .is_none_or(|currency| price["currency"] == **currency)
                && price["lookup_key"].as_str() == lookup_key.as_deref()
        });
        match fitting {
            Some(price) => Ok(price),
            None => {
                let product = self.new_product()?;
                self.new_price(&product, recurring, amount)
            }
        }
    }

    fn any_price(&mut self) -> Result<String, H::Error> {
        match self.existing("price", &[], |_| true)? {
            Some(price) => Ok(price),
            None => self.prologue(|story| {
                let recurring = story.wish.mode == Some(Mode::Subscription);
                story.price_to_sell_at(recurring)
            }),
        }
    }

    pub fn update_price(&mut self) -> Result<(), H::Error> {
        let key = self.wish.lookup_key.take();
        let price = self.any_price()?;
        if let Some(key) = key {
            self.change(&price, json!({ "lookup_key": key }));
        }
        self.tell("price.updated", &price);
        Ok(())
    }

    pub fn delete_price(&mut self) -> Result<(), H::Error> {
        let price = self.any_price()?;
        self.tell("price.deleted", &price);
        Ok(())
    }

    pub fn new_customer(&mut self) -> Result<String, H::Error> {
        let email = self.wish.email.clone();
        let fields = objects::customer(email.as_deref().unwrap_or(objects::EMAIL));
        let customer = self.make("cus", "customer", fields);
        self.tell("customer.created", &customer);
        Ok(customer)
    }

    /// Whoever buys: the customer that the subject is already, if it is one.
    pub fn buyer(&mut self) -> Result<String, H::Error> {
        match self.known_customer()? {
            Some(customer) => Ok(customer),
            None => self.new_customer(),
        }
    }

    fn known_customer(&mut self) -> Result<Option<String>, H::Error> {
        if let Some(customer) = self.named("customer")? {
            return Ok(Some(customer));
        }
        let Some(subject) = self.wish.subject.clone() else {
            return Ok(None);
        };
        let Some(customer) = self.host.customer_of(&subject)? else {
            return Ok(None);
        };
        let found = self.find("customer", &[("id", &customer)])?;
        Ok(found.into_iter().next())
    }

    fn any_customer(&mut self) -> Result<String, H::Error> {
        let known = match self.known_customer()? {
            None if self.wish.subject.is_none() => self.existing("customer", &[], |_| true)?,
            known => known,
        };
        match known {
            Some(customer) => Ok(customer),
            None => self.prologue(Self::new_customer),
        }
    }

    pub fn update_customer(&mut self) -> Result<(), H::Error> {
        let customer = self.any_customer()?;
        self.tell("customer.updated", &customer);
        Ok(())
    }

    /// The subscriptions of a customer end with them.
    pub fn delete_customer(&mut self) -> Result<(), H::Error> {
        let customer = self.any_customer()?;
        for subscription in self.find("subscription", &[("customer", &customer)])? {
            if super::billing::is_alive(self.see(&subscription)) {
                self.cancel(&subscription);
            }
        }
        self.tell("customer.deleted", &customer);
        Ok(())
    }
}
