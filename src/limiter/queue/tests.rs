//! Lines of waiters that are named by numbers, with places a second apart.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

type Names = Line<u64, ()>;

fn ticket(number: u64, client: u8, class: Priority) -> Ticket {
    Ticket { number, client: Key([client; 12]), class }
}

fn normal(number: u64, client: u8) -> Ticket {
    ticket(number, client, Priority::Normal)
}

/// A line to which `tickets` came, each with a place one second after the one before.
fn line(begin: Instant, tickets: &[Ticket]) -> Names {
    let mut line = Names::default();
    for (second, ticket) in (1..).zip(tickets) {
        line.add(Place { due: begin + Duration::from_secs(second), proof: () });
        line.join(*ticket, ticket.number);
    }
    line
}

/// Everyone in the order in which they are called.
fn order(line: &mut Names, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| line.call(now)).collect()
}

fn late(begin: Instant) -> Instant {
    begin + Duration::from_hours(24)
}

#[test]
fn a_client_alone_is_served_in_order_of_arrival_whoever_was_first_told_its_place() {
    let begin = Instant::now();
    let mut line = line(begin, &[normal(3, 1), normal(1, 1), normal(2, 1)]);
    assert_eq!(line.call(begin), None, "no place is due");
    assert_eq!(line.call(begin + Duration::from_secs(1)), Some(1));
    assert_eq!(line.call(begin + Duration::from_secs(1)), None, "one place, one waiter");
    assert_eq!(order(&mut line, late(begin)), [2, 3]);
}

#[test]
fn one_client_with_a_thousand_does_not_hold_up_anothers_first() {
    let begin = Instant::now();
    let mut tickets: Vec<_> = (0..1000).map(|number| normal(number, 1)).collect();
    tickets.push(normal(1000, 2));
    let order = order(&mut line(begin, &tickets), late(begin));
    assert!(order[..2].contains(&1000), "{:?}", &order[..4]);
    assert_eq!(order.len(), 1001);
}

#[test]
fn clients_take_turns_and_a_higher_class_goes_first() {
    let begin = Instant::now();
    let tickets = [
        ticket(0, 1, Priority::Low),
        normal(1, 1),
        normal(2, 1),
        normal(3, 1),
        normal(4, 2),
        normal(5, 3),
        ticket(6, 4, Priority::High),
    ];
    assert_eq!(order(&mut line(begin, &tickets), late(begin)), [6, 1, 4, 5, 2, 3, 0]);
}

#[test]
fn whoever_leaves_lets_the_others_move_up_and_gives_up_the_last_place() {
    let begin = Instant::now();
    let at = |second| begin + Duration::from_secs(second);
    let mut line = line(begin, &[normal(1, 1), normal(2, 1), normal(3, 1)]);
    line.leave(normal(1, 1));
    assert_eq!(line.give_up(begin).unwrap().due, at(3));
    assert_eq!(line.give_up(begin), None, "all others are waited for");
    assert_eq!(line.call(at(1)), Some(2));
    // Called, but gone before it came: the next takes the same place.
    line.leave(normal(2, 1));
    assert_eq!(line.call(at(1)), Some(3));
    assert_eq!(line.take(normal(3, 1)).unwrap().due, at(1));
    assert_eq!(line.give_up(at(1)).unwrap().due, at(2));
    assert!(line.is_over());
}

#[test]
fn a_place_that_cannot_be_given_back_is_for_the_next_and_lapses_with_its_time() {
    let begin = Instant::now();
    let mut line = line(begin, &[normal(1, 1), normal(2, 1)]);
    line.leave(normal(2, 1));
    let last = line.give_up(begin).unwrap();
    line.keep(last.clone());
    assert_eq!(line.give_up(begin), None, "it is not offered twice");
    assert_eq!(line.next_spare(), Some(last.due));
    line.join(normal(3, 2), 3);
    assert_eq!(line.next_spare(), None);
    line.leave(normal(3, 2));
    line.leave(normal(1, 1));
    assert_eq!(line.give_up(last.due).map(|place| place.due), Some(begin + Duration::from_secs(1)));
    assert_eq!(line.give_up(last.due), Some(last));
    assert!(line.is_over());
}

proptest! {
    #[test]
    fn a_turn_is_foreseen_as_it_comes(
        waiting in prop::collection::vec((0..4_u8, 0..3_usize), 0..30), called in 0..10_u64, (client, class) in (0..5_u8, 0..3_usize),
    ) {
        let (begin, class) = (Instant::now(), Priority::ALL[class]);
        let second = |number: usize| begin + Duration::from_secs(number as u64 + 1);
        let tickets: Vec<_> =
            (0..).zip(&waiting).map(|(number, (client, class))| ticket(number, *client, Priority::ALL[*class])).collect();
        let mut line = line(begin, &tickets);
        // Some have gone before.
        let _ = (0..called).filter_map(|seconds| line.call(begin + Duration::from_secs(seconds))).count();
        let own = second(tickets.len());
        let foreseen = line.turn(Key([client; 12]), class, Some(own));
        let newcomer = ticket(1000, client, class);
        line.add(Place { due: own, proof: () });
        line.join(newcomer, 1000);
        let went = (0..=tickets.len()).map(second).find(|now| order(&mut line, *now).contains(&1000));
        prop_assert_eq!(foreseen, went);
    }

    #[test]
    fn nobody_is_forgotten_called_twice_or_without_a_place(
        steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..5_u64), 1..200),
    ) {
        let begin = Instant::now();
        let mut line = Names::default();
        let mut waiting: Vec<Ticket> = Vec::new();
        let (mut number, mut places, mut now) = (0, 0_usize, begin);
        for (client, class, step) in steps {
            match step {
                0 => {
                    now += Duration::from_secs(1);
                    while let Some(called) = line.call(now) {
                        let place = waiting.iter().position(|ticket| ticket.number == called);
                        let ticket = waiting.remove(place.expect("it waits"));
                        prop_assert!(line.take(ticket).expect("it has a place").due <= now);
                        places -= 1;
                    }
                }
                1 if !waiting.is_empty() => {
                    let ticket = waiting.remove(usize::from(client) % waiting.len());
                    line.leave(ticket);
                    line.leave(ticket);
                }
                2 => places -= usize::from(line.give_up(now).is_some()),
                _ => {
                    let ticket = ticket(number, client, Priority::ALL[class]);
                    line.add(Place { due: now + Duration::from_secs(step), proof: () });
                    line.join(ticket, number);
                    waiting.push(ticket);
                    (number, places) = (number + 1, places + 1);
                }
            }
            prop_assert_eq!(line.waiting(), waiting.len());
            prop_assert!(places >= waiting.len());
            prop_assert_eq!(line.is_over(), places == 0);
        }
    }
}
