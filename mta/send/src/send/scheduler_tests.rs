use super::*;
use proptest::prelude::*;

use Channel::{Local, Remote};

const ONE: MessageId = MessageId(1);
const TWO: MessageId = MessageId(2);

fn scheduler() -> Scheduler {
    Scheduler::new([2, 2])
}

fn due(local: Option<u64>, remote: Option<u64>) -> Known {
    Known { due: [local, remote] }
}

#[test]
fn a_message_goes_through_to_its_end() {
    let mut s = scheduler();
    s.known(ONE, due(Some(10), None), 5);
    assert_eq!(s.wake(), Some(10));
    assert_eq!(s.next(9), None);
    assert_eq!(s.next(10), Some(Action::Open(Local, ONE)));
    s.opened(Local, ONE, 110, false);
    assert_eq!(s.next(10), Some(Action::NextRecipient(Local)));
    let (slot, delivery) = s.recipient(Local, 7).unwrap();
    assert_eq!(delivery, Delivery { id: ONE, offset: 7, log_number: 1, last: false });
    assert_eq!(s.next(10), Some(Action::NextRecipient(Local)));
    s.pass_over(Local);
    assert_eq!((s.load(Local), s.next(10)), ((1, 2), None));
    s.settle(Local, slot, false);
    assert_eq!(s.next(10), Some(Action::Remove(Local, ONE)));
    s.removed(ONE, false, 10);
    assert_eq!(s.next(10), Some(Action::Finish(ONE)));
    assert_eq!((s.next(10), s.wake()), (None, None));
}

#[test]
fn deferred_recipients_are_tried_again_at_the_time_fixed_when_the_pass_began() {
    let mut s = scheduler();
    s.known(ONE, due(None, Some(0)), 0);
    assert_eq!(s.next(0), Some(Action::Open(Remote, ONE)));
    s.opened(Remote, ONE, 400, false);
    s.next(0);
    let (slot, _) = s.recipient(Remote, 0).unwrap();
    s.pass_over(Remote);
    s.settle(Remote, slot, true);
    assert_eq!(s.next(399), None);
    assert_eq!(s.waiting().collect::<Vec<_>>(), [(Remote, ONE, 400)]);
    s.hurry(20);
    assert_eq!(s.next(20), Some(Action::Open(Remote, ONE)));
}

#[test]
fn fix_42_limits_hold_and_can_grow_up_to_the_spawner_only() {
    let mut s = Scheduler::new([3, 3]);
    s.set_limit(Local, 1);
    s.known(ONE, due(Some(0), None), 0);
    s.next(0);
    s.opened(Local, ONE, 100, false);
    s.next(0);
    s.recipient(Local, 0).unwrap();
    assert_eq!(s.next(0), None, "limit reached");
    s.set_limit(Local, 1_000_000);
    assert_eq!(s.load(Local), (1, 3));
    for offset in 1..3 {
        assert_eq!(s.next(0), Some(Action::NextRecipient(Local)));
        s.recipient(Local, offset).unwrap();
    }
    assert_eq!(s.next(0), None);
    assert!(s.recipient(Local, 9).is_none());
    s.set_limit(Local, 0);
    s.settle(Local, 1, false);
    assert_eq!(s.next(0), None, "held");
    assert!(s.delivery(Local, 1).is_none() && s.delivery(Local, 999).is_none());
    assert_eq!(s.delivery(Local, 2).unwrap().offset, 2);
}

#[test]
fn a_message_with_both_channels_is_finished_once() {
    let mut s = scheduler();
    s.known(ONE, due(Some(0), Some(0)), 0);
    let mut files = vec![Local, Remote];
    let mut finished = 0;
    while let Some(action) = s.next(0) {
        match action {
            Action::Open(channel, id) => s.opened(channel, id, 1, false),
            Action::NextRecipient(channel) => s.pass_over(channel),
            Action::Remove(channel, id) => {
                files.retain(|&c| c != channel);
                s.removed(id, !files.is_empty(), 0);
            }
            Action::Finish(id) => {
                assert_eq!((id, files.len()), (ONE, 0));
                finished += 1;
            }
        }
    }
    assert_eq!(finished, 1);
}

#[test]
fn channels_take_turns() {
    let mut s = scheduler();
    for id in [ONE, TWO] {
        s.known(id, due(Some(0), Some(0)), 0);
    }
    let channels: Vec<_> = (0..2)
        .map(|_| match s.next(0) {
            Some(Action::Open(channel, id)) => {
                s.channel_trouble(channel, id, 0);
                channel
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_ne!(channels[0], channels[1]);
}

#[test]
fn system_errors_put_the_step_aside_for_123_seconds() {
    let mut s = scheduler();
    s.known(ONE, due(Some(0), None), 0);
    s.known(TWO, due(None, None), 0);
    assert_eq!(s.next(0), Some(Action::Finish(TWO)));
    s.finish_later(TWO, 0);
    assert_eq!(s.next(0), Some(Action::Open(Local, ONE)));
    s.channel_trouble(Local, ONE, 0);
    assert_eq!((s.next(122), s.wake()), (None, Some(123)));
    assert_eq!(s.next(123), Some(Action::Finish(TWO)));
    assert_eq!(s.next(123), Some(Action::Open(Local, ONE)));
    s.opened(Local, ONE, 100, false);
    s.next(123);
    s.pass_broken(Local, 123);
    assert_eq!(s.next(245), None);
    assert_eq!(s.next(246), Some(Action::Open(Local, ONE)));
}

#[test]
fn exiting_starts_nothing_but_finishes_what_runs() {
    let mut s = scheduler();
    s.known(ONE, due(Some(0), None), 0);
    s.known(TWO, due(Some(0), None), 0);
    s.next(0);
    s.opened(Local, ONE, 100, false);
    s.next(0);
    let (slot, _) = s.recipient(Local, 0).unwrap();
    s.exit();
    assert_eq!(s.next(0), None);
    assert!(!s.is_quiet());
    s.settle(Local, slot, false);
    assert!(s.is_quiet());
    // The pass was still being read: its message stays in the files only.
    assert_eq!((s.next(0), s.wake()), (None, None));
    assert_eq!(s.waiting().collect::<Vec<_>>(), [(Local, TWO, 0)]);
}

#[test]
fn a_lost_spawner_does_not_keep_us_waiting() {
    let mut s = scheduler();
    s.known(ONE, due(Some(0), None), 0);
    s.next(0);
    s.opened(Local, ONE, 100, false);
    s.next(0);
    s.recipient(Local, 0).unwrap();
    s.close(Local);
    s.exit();
    assert!(s.is_quiet());
}

/// A world that answers actions at random; in the end every recipient is served.
fn simulate(recipients: &[(u8, u8)], choices: &[u8]) {
    let mut s = Scheduler::new([3, 2]);
    let mut left: HashMap<(Channel, MessageId), Vec<u64>> = HashMap::new();
    let mut finished = Vec::new();
    for (i, &(local, remote)) in recipients.iter().enumerate() {
        let id = MessageId(i as u64);
        let due = |n: u8| (n > 0).then_some(0);
        s.known(id, Known { due: [due(local), due(remote)] }, 0);
        for (channel, n) in [(Local, local), (Remote, remote)] {
            if n > 0 {
                left.insert((channel, id), (0..u64::from(n)).collect());
            }
        }
    }
    let mut choices = choices.iter().copied().chain(std::iter::repeat(0));
    let mut running: Vec<(Channel, u16)> = Vec::new();
    let mut reading: HashMap<Channel, (MessageId, VecDeque<u64>)> = HashMap::new();
    let mut now = 0;
    for _ in 0..100_000 {
        let choice = choices.next().unwrap_or(0);
        match s.next(now) {
            Some(Action::Open(channel, id)) if choice % 7 == 6 => s.channel_trouble(channel, id, now),
            Some(Action::Open(channel, id)) => {
                reading.insert(channel, (id, left[&(channel, id)].iter().copied().collect()));
                s.opened(channel, id, now + 10, false);
            }
            Some(Action::NextRecipient(channel)) => {
                let next = reading.get_mut(&channel).unwrap().1.pop_front();
                match next {
                    Some(_) if choice % 11 == 10 => s.pass_broken(channel, now),
                    Some(offset) => {
                        let (slot, delivery) = s.recipient(channel, offset).unwrap();
                        assert_eq!(delivery.id, reading[&channel].0);
                        running.push((channel, slot));
                    }
                    None => s.pass_over(channel),
                }
            }
            Some(Action::Remove(channel, id)) => {
                assert!(left.remove(&(channel, id)).unwrap().is_empty(), "removed with recipients left");
                let other = Channel::BOTH.into_iter().any(|c| left.contains_key(&(c, id)));
                s.removed(id, other, now);
            }
            Some(Action::Finish(id)) if choice % 5 == 4 => s.finish_later(id, now),
            Some(Action::Finish(id)) => {
                assert!(!left.keys().any(|(_, i)| *i == id));
                finished.push(id);
            }
            None if !running.is_empty() => {
                let (channel, slot) = running.swap_remove(usize::from(choice) % running.len());
                let delivery = s.delivery(channel, slot).unwrap();
                let deferred = choice % 3 == 2;
                if !deferred {
                    left.get_mut(&(channel, delivery.id)).unwrap().retain(|&o| o != delivery.offset);
                }
                s.settle(channel, slot, deferred);
            }
            None => match s.wake() {
                Some(at) => now = at.max(now),
                None => break,
            },
        }
    }
    finished.sort();
    assert_eq!(finished, (0..recipients.len() as u64).map(MessageId).collect::<Vec<_>>());
    assert!(left.is_empty() && s.is_quiet());
}

proptest! {
    #[test]
    fn every_recipient_is_served_and_every_message_finished_once(
        recipients in prop::collection::vec((0u8..5, 0u8..5), 0..12),
        choices in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        simulate(&recipients, &choices);
    }
}
