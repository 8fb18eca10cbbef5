"""Closed classes of English words, as tables. A word may end in a pattern ("episodes?").

Rules join the words of a class by `patterns.any_of`.
"""

from selfloop.text.patterns import any_of, listed

QUESTION_WORDS = listed("what which who whom whose when where why how")
AUXILIARIES = listed("""
    am is are was were do does did has have had can could will would should may might must
    """)
ORDINALS = listed("first second third fourth fifth sixth seventh eighth ninth tenth")

# Words that may stand before the question word: "In which year ...?"
LEADING_PREPOSITIONS = listed("""
    in on at for of to from by with during about after before under into through since until against
    near over
    """)

# Words that say nothing about the subject of a question.
FUNCTION_WORDS = (
    *AUXILIARIES,
    *QUESTION_WORDS,
    *listed("""
    be been being a an the and or not in on at of to for from by with as into onto over under
    between among during after before than that this these those it its he she they him her his
    their them there through about against near since until within without around across along
    inside behind beyond per via if because also ever first called named known used made born did
    while
    """),
)

# Words that may follow a noun to say which one is meant: "the capital OF Egypt", "the man WHO sold
# it".
RESTRICTING_WORDS = listed("""
    of in on at to for from by with that which who whose whom where when between among during under
    near over into through around against behind inside within about after before without than as
    called named known used made born across along beyond since per
    """)

# Small words within a name: "Ludwig van Beethoven".
NAME_PARTICLES = listed("van von de der la le al bin ibn da di")

# Nouns that say nothing until one knows whose, or which: "the president", "the river".
OPEN_NOUNS = listed(r"""
    (?:vice|prime|main|current|former|original|real|full|true|new|old|other|same|whole)s?
    (?:lead|title|head|team|home)s?
    presidents? kings? queens? ministers? governors? mayors? emperors? leaders? rulers? captains?
    coach(?:es)? chiefs?
    players? winners? losers? champions? authors? writers? poets? artists? painters? composers?
    singers? actors? actress(?:es)? directors? producers? founders? owners? creators? inventors?
    discoverers? narrators? speakers? characters? protagonists? antagonists? heroes hero heroine
    villain narrator hosts? members?
    persons? man woman men women boys? girls? guys? lady child father mother sons? daughters?
    brothers? sisters? wife husband couple
    scientists? philosophers? teachers? students? doctors? patients? victims? suspects? detectives?
    killers?
    books? novels? stor(?:y|ies) poems? plays? films? movies? songs? albums? series shows? episodes?
    seasons? chapters? verses? scenes? paintings? sculptures? statues?
    games? match(?:es)? teams? clubs? leagues? tournament races?
    bands? groups? compan(?:y|ies) organi[sz]ations? part(?:y|ies) schools? universit(?:y|ies)
    colleges? church museum buildings? houses? bridges? towers? hotels? restaurants? ships? boats?
    planes? cars? trains?
    rivers? lakes? mountains? islands? cit(?:y|ies) towns? villages? countr(?:y|ies) states?
    count(?:y|ies) provinces? regions? districts? areas? places? locations? streets? capitals?
    kingdoms? empires? dynasty republic colony nations? tribes?
    wars? battles? revolutions? treat(?:y|ies) elections? events? accidents? crash attacks? disaster
    festivals? ceremon(?:y|ies) conferences? projects? products?
    names? titles? words? numbers? years? dates? populations? currenc(?:y|ies) governments? flags?
    anthem mottos?
    answers? questions? problems? reasons? causes? results? purposes? meanings? themes? plots?
    settings? points? topics? subjects? objects? things? items? types?
    dogs? reports? stud(?:y|ies) experiments? programs? programmes? laws? bills? acts? cases?
    courts? awards? prizes?
    theater theatre librar(?:y|ies) box bag room store shop office temple castle palace fort
    fortress park garden lyrics performance concert tour mission expedition
    """)

# Roles that even a superlative does not pin down: "the first president", but of what?
OPEN_ROLES = listed(r"""
    (?:vice|prime) presidents? kings? queens? ministers? governors? mayors? emperors? captains?
    coach authors? capitals? members? episodes? chapters? seasons? albums? winners? champions?
    book novel film movie song game match name title
    """)

# Roles in a text at hand: a name elsewhere in the question does not say whose text it is.
ROLES_IN_A_TEXT = listed(r"""
    authors? narrators? speakers? writers? poets? story poem protagonist antagonist reader
    characters?
    """)

# Of these there is one, or one stands for all: "the sun", "the human heart".
UNIQUE_THINGS = listed(
    "world earth sun moon sky universe bible year week planet internet human solar olympic"
)

# Words that end in "est" and are not superlatives.
EST_WORDS = listed("""
    forest west east rest test guest interest contest harvest request priest protest chest nest
    quest invest suggest conquest arrest forrest everest
    """)

# After "how": a number or another short text is asked for ("how many", "how do you say").
MEASURES = listed(r"""
    many much long old tall high far fast big large deep heavy wide often hot cold thick small young
    late early wealthy rich strong loud bright close soon quickly is are
    """)

# Nouns that only a longer text can explain: "What is the significance of ...?"
EXPLAINED_NOUNS = (
    *listed(r"""
    differences? relationship connection significance importance meaning definition effects?
    impacts? influence reasons? history process
    """),
    "best way",
    *listed(r"""
    purpose function role point idea concept theme summary explanation consequences? advantages?
    disadvantages? benefits? steps problem relevance story plot theory
    """),
    "main idea",
    "characteristics",
)

# Capitalised titles that name their holder together with the words that follow.
OFFICES = (
    *listed("CEO CFO PM President"),
    *("King of", "Queen of", "Prime Minister"),
    *listed("Capital Mayor Pope"),
)

QUESTION_WORD = any_of(QUESTION_WORDS)
AUXILIARY_VERB = any_of(AUXILIARIES)
