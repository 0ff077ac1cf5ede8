"""Class names of the data sets, in the order of their class numbers, as published by their owners."""

# A1 to A120, in the order of the list in the README of the data set's owners (shahroudy/NTURGB-D), compared number by number;
# some names are shorter ("headache" for "touch head (headache)", "capitulate" for "hands up (both hands)").
NTU120 = tuple(
    """drink water; eat meal; brush teeth; brush hair; drop; pick up; throw; sit down; stand up; clapping; reading;
    writing; tear up paper; put on jacket; take off jacket; put on a shoe; take off a shoe; put on glasses;
    take off glasses; put on a hat; take off a hat; cheer up; hand waving; kicking something; reach into pocket;
    hopping; jump up; phone call; play with phone; type on a keyboard; point to something; taking a selfie; check time;
    rub two hands; nod head; shake head; wipe face; salute; put palms together; cross hands in front; sneeze or cough;
    staggering; falling down; headache; chest pain; back pain; neck pain; nausea or vomiting; fan self;
    punch or slap; kicking; pushing; pat on back; point finger; hugging; giving object; touch pocket; shaking hands;
    walking towards; walking apart; put on headphone; take off headphone; shoot at basket; bounce ball;
    tennis bat swing; juggle table tennis ball; hush; flick hair; thumb up; thumb down; make OK sign; make victory sign;
    staple book; counting money; cutting nails; cutting paper; snap fingers; open bottle; sniff or smell; squat down;
    toss a coin; fold paper; ball up paper; play magic cube; apply cream on face; apply cream on hand; put on bag;
    take off bag; put object into bag; take object out of bag; open a box; move heavy objects; shake fist;
    throw up cap or hat; capitulate; cross arms; arm circles; arm swings; run on the spot; butt kicks; cross toe touch;
    side kick; yawn; stretch oneself; blow nose; hit with object; wield knife; knock over; grab stuff; shoot with gun;
    step on foot; high-five; cheers and drink; carry object; take a photo; follow; whisper; exchange things;
    support somebody; rock-paper-scissors""".replace("\n    ", " ").split("; ")
)

PKU = tuple(
    """bow; brush hair; brush teeth; check time; cheer up; clapping; cross hands in front; drink water; drop; eat meal;
    falling; give something; hand waving; handshaking; hopping; hugging; jump up; kick other person; kick something;
    phone call; pat on back; pick up; play with phone; point finger at person; point to something; punch or slap;
    push other person; put on a hat; put something inside pocket; reading; rub two hands; salute; sit down; stand up;
    take off a hat; take off glasses; take off jacket; take out of pocket; taking a selfie; tear up paper; throw;
    touch back; touch chest; touch head; touch neck; type on a keyboard; use a fan; put on jacket; put on glasses;
    wipe face; writing""".replace("\n    ", " ").split("; ")
)

UI_PRMD = tuple(
    """deep squat; hurdle step; inline lunge; side lunge; sit to stand; straight leg raise; shoulder abduction;
    shoulder extension; shoulder rotation; shoulder scaption""".replace("\n    ", " ").split("; ")
)  # the last five standing; rotation: internal and external
