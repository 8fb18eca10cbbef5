"""Texts that are no answer: thoughts, the question again, refusals, boilerplate, the prompt's own
words.

Such a text is never held true, however sure the detectors are of it: a model that writes "<think>"
nine times of nine agrees with itself perfectly. A model that says that it does not know is another
matter: see `answers.declines`.

The rules look at the form of a text, never at facts. Where a title may have that form, its capitals
tell: "Let Me Think About It" is a song, "Let me think about it" is a thought.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from selfloop.records import Message
from selfloop.text.answers import content
from selfloop.text.english.words import AUXILIARY_VERB, QUESTION_WORD
from selfloop.text.patterns import listed
from selfloop.text.thoughts import LABEL, thought

EMPTY = "empty text"
THOUGHT = "a thought without an answer"
REPETITION = "the question again"
QUESTION = "a question in place of an answer"
REFUSAL = "a refusal"
BOILERPLATE = "boilerplate of an assistant"
PROMPT = "words of the prompt"


# --- thoughts without marks

# Openings of a thought without marks, before the answer. Lower-case verbs: a title would have
# capitals.
_FILLER = (
    r"\b(?:[Oo]kay|OK|Ok|[Aa]l(?:l ?)?right|[Hh]mm+|[UuEe][mhr]m?|[Ww]ell|[Ss]o|[Ff]irst(?:ly)?"
    r"|[Nn]ow|[Ww]ait)\b"
)
_START = rf"(?:{_FILLER}[\s,.!…-]*)"
_ALOUD = re.compile(
    rf"{_START}*(?:"
    r"[Ll]et(?:['’]s| me| us)(?: (?:think|see|start|break|try|figure|consider|recall|analy[sz]e"
    r"|work|look|check|begin)\b|$)"
    r"|(?:I|[Ww]e)(?:['’]ll| will)? (?:need|have|want|try|am going|are going) to "
    r"(?:figure|find|think|determine|answer"
    r"|identify|recall|remember|work|solve|look|consider|analy[sz]e|provide|know)\b"
    r"|(?:I|[Ww]e)(?:['’]m|['’]re) (?:going|trying) to "
    r"(?:figure|find|think|determine|answer|identify|work|solve)\b"
    r"|(?:I|[Ww]e)(?: think (?:I|we))? (?:should|must|can|will|shall)(?: now| first)? "
    r"(?:figure|find|think|determine"
    r"|answer|identify|recall|work|solve|look|consider|analy[sz]e|start|begin)\b"
    r"|I think (?:I|we) (?:should|need|must)\b"
    r"|[Ww]e(?:['’]re| are) (?:asked|given)\b|[Tt]o (?:answer|determine|find|figure "
    r"out|solve|identify) (?:this|the"
    r"|that|it|what|which|who|your)\b"
    r"|(?:[Tt]he|[Tt]his) (?:user|question|prompt|task) (?:is asking|asks|wants|seems|is "
    r"about|says|here)\b"
    r"|[Tt]he user\W*$|[Tt]his is a question\b"
    r"|(?:[Tt]hinking(?: [Pp]rocess)?|[Tt]houghts?|[Rr]easoning|[Aa]nalysis)[*_]*\s*:"
    r"|(?:[Tt]hink|[Rr]eason)(?:ing)? step by step|[Ss]tep 1\b)"
    rf"|{_START}{{2,}}$|{_FILLER}\s*(?:,|…|\.\.+)\s*$"
)

# --- refusals and boilerplate

_CANNOT = (
    r"(?:cannot|can['’]?t|can not|could not|couldn['’]t|won['’]t|will not|am not able to|['’]m "
    r"not able to|am unable to"
    r"|['’]m unable to|must decline to|refuse to|decline to|am not allowed to|['’]m not allowed "
    r"to|do not want to)"
)
_REFUSAL = re.compile(
    r"(?:(?:I['’]?m|I am) (?:very |so |really |truly )?(?:sorry|afraid)[^.!?]{0,20}?,? (?:but "
    r"|that )?"
    r"|[Ss]orry,? (?:but )?|[Uu]nfortunately,? |[Nn]o,? )?"
    rf"(?:I ?{_CANNOT} (?:answer|assist|help "
    r"(?:you|with)|provide|comply|fulfil|give|discuss|engage|share|tell|say"
    r"|respond|do (?:that|this)|offer|continue|determine|verify|confirm|predict|create|generate"
    r"|complete|access|browse"
    r"|find|recall|remember|process|support|write|identify|make)\b"
    r"|I apologi[sz]e\b|I must decline\b|I (?:do not|don['’]t) feel comfortable\b"
    r"|(?:[Tt]his|[Tt]he|[Yy]our|[Tt]hat) (?:question|request) (?:cannot|can['’]t|is "
    r"(?:unclear|ambiguous|incomplete"
    r"|too|not|inappropriate|missing)|violates|does not (?:make|provide|specify|have))"
    r"|[Ii]t(?:['’]s| is) (?:not |im)(?:possible|appropriate|clear) to "
    r"(?:answer|provide|say|tell|determine|give)\b"
    r"|(?:[Tt]here is |[Tt]here['’]s )?(?:not enough|insufficient) (?:information|context|data)\b"
    r"|(?:[Mm]ore|[Aa]dditional) (?:information|context|details?) (?:is|are) (?:needed|required))"
)
_MODEL = (
    r"(?:language model|LLM|chat ?bot|AI[ -](?:assistant|model|system|program|language|chat ?bot)"
    r"|computer program)"
)
_KIND = r"(?:large |text-based |helpful |virtual |digital |just |only |merely |advanced |neutral )*"
_BOILERPLATE = re.compile(
    rf"as an? {_KIND}(?:{_MODEL}|virtual assistant|artificial intelligence"
    r"|(?:AI|assistant)(?:,| (?:I|it|developed|created|trained|designed|built|made|by|that)\b))"
    r"|you are an? (?:helpful|friendly|AI|language model|assistant)\b"
    r"|(?:I(?:['’]m| am)|my name is) "
    r"(?:ChatGPT|GPT|Claude|Qwen|Gemma|Gemini|Llama|Mistral|DeepSeek|SmolLM"
    r"|Copilot|Grok)"
    rf"|(?:I['’]?m|I am|this is) {_KIND}an? {_KIND}(?:{_MODEL}|AI\b|artificial "
    r"intelligence|virtual assistant)"
    r"|(?:as of )?my (?:training data|knowledge cut-?off|last (?:knowledge )?update)\b|as of my "
    r"last\b"
    r"|I (?:was|am|have been) (?:trained|programmed|designed|created|developed) (?:by|on|to)\b"
    r"|I (?:do not|don['’]t) have (?:access|personal|real-?time|feelings|opinions|the ability|any "
    r"(?:personal|specific)"
    r"|enough|sufficient|specific|information)\b"
    r"|(?:\w+[!,.] )?(?:how|what) (?:can|may) I (?:help|assist|do for)\b"
    r"|I(?:['’]m| am|['’]d| would)(?: be)? (?:here|happy|glad|delighted|more than happy) to(?: "
    r"help| assist| answer|$)"
    r"|(?:explanation|note|context|hint|instructions?|example)[*_]*\s*:"
    r"|(?:sure|certainly|of course|absolutely)[!,.]? (?:here|I(?:['’]|\b)|let me|below|thing[!,.])"
    r"|here(?:['’]s| is| are)\b.*:$|below (?:is|are)\b.*:$|the following\b.*:$"
    r"|(?:great|good|interesting|excellent) question\s*[!,.:-]"
    r"|(?:thank you|thanks) for (?:your|asking|the)|you['’]re welcome\b"
    r"|(?:the|my) (?:(?:correct|right|final|best|short) )*(?:answer|solution|response)"
    r"(?: to (?:this|the|that|your) (?:quiz )?(?:question|problem))?"
    r"(?: is| would be| should be| was)(?: (?:right|wrong|correct|incorrect|as "
    r"follows|below|above|given|unclear))?\W*$"
    r"|it(?:['’]s| is) important to (?:note|remember|understand)\b|I hope (?:this|that|it) "
    r"helps\b|let me know if\b"
    r"|feel free to\b",
    re.IGNORECASE,
)
_ASKS_BACK = re.compile(
    r"[Pp]lease (?:provide|specify|clarify|give|enter|ask|rephrase|try|note|refer|see|tell|let "
    r"me|share|state|select"
    r"|choose|answer|write|be more)\b"
    r"|(?:[Cc]ould|[Cc]an|[Ww]ould|[Ww]ill) you (?:please "
    r")?(?:provide|clarify|specify|rephrase|give|tell|repeat"
    r"|explain|share|be more)\b|[Ww]hat do you mean\b"
)
_GREETING = re.compile(
    r"(?:hello|hi|hey|greetings)(?: there)?[!,.]+ +(?:how|I|I['’]m|what)\b", re.IGNORECASE
)
_ASSENT = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|got it|understood|no problem|sure thing|you got "
    r"it)\s*!+",
    re.IGNORECASE,
)
# "I'm sorry, but I cannot" in those languages. An apology alone may be a translation that was asked
# for.
_REFUSES_ELSEWHERE = re.compile(
    r"(?:(?:je suis )?désolée?[, ]+(?:mais )?)?je ne (?:peux|puis) (?:pas|malheureusement)"
    r"|(?:lo siento|perdón|disculpa)[, ]+(?:pero )?no (?:puedo|tengo)|no puedo "
    r"(?:responder|ayudar|proporcionar|darte)"
    r"|(?:es )?tut mir (?:sehr )?leid, |ich kann "
    r"(?:diese|das|ihnen|dir|dazu|darauf|leider)\b.{0,60}\bnicht\b"
    r"|(?:desculpe|lamento|sinto muito)[, ]+(?:mas )?(?:eu )?não (?:posso|consigo|tenho)|não "
    r"posso (?:responder|ajudar)"
    r"|mi dispiace[, ]+(?:ma )?non (?:posso|sono|ho)|non posso (?:rispondere|aiutar|fornire)"
    r"|(?:извините|простите|к сожалению)[, ]+(?:но )?я не|я не могу (?:ответ|помо|предостав)"
    r"|(?:przepraszam|przykro mi)[, ]+(?:ale )?(?:nie|jako)|nie mogę "
    r"(?:odpowiedzieć|pomóc|udzielić)"
    r"|(?:het spijt me|sorry)[, ]+maar|ik kan (?:deze|die|dat|u|je)\b.{0,60}\bniet\b|üzgünüm[, "
    r"]+\w+"
    r"|maaf[, ]+(?:saya|tetapi|tapi)|xin lỗi[, ]+(?:tôi|nhưng)"
    r"|(?:很?抱歉|对不起|對不起|不好意思)[,,。 ]*(?:但|我|作)"
    r"|我(?:无法|不能|無法|没法)(?:回答|提供|帮|幫)"
    r"|(?:大変)?申し訳(?:ありません|ございません|ない)(?:が|けど)|お答えできません|回答できません"
    r"|죄송(?:하지만|합니다만|합니다[.,] )|답변(?:할|드릴) 수 없"
    r"|(?:عذر[اً]+|آسف)[،, ]+(?:ولكن|لكن|لا)|لا (?:أستطيع|يمكنني)"
    r"|(?:क्षमा करें|माफ़ करें|मुझे खेद है)[, ]+(?:लेकिन|मैं|कि)|متأسف(?:م|انه)[،, ]+",
    re.IGNORECASE,
)
# "As an AI language model" in the languages that most is written in.
_ELSEWHERE = re.compile(
    r"als (?:eine? )?(?:großes |ki[ -]|ai[ -]|groot |een "
    r")*(?:ki\b|ai\b|sprachmodell|taalmodel|assistent)"
    r"|en tant (?:que|qu['’]) ?(?:une? )?(?:grand )?(?:mod[èe]le de langage|ia\b|intelligence "
    r"artificielle|assistant)"
    r"|(?:como|sendo|siendo) (?:un |una |um |uma )?(?:gran |grande )?(?:modelo de "
    r"(?:lenguaje|linguagem)|ia\b"
    r"|inteligencia artificial|inteligência artificial|asistente|assistente)"
    r"|(?:come|in quanto|essendo) (?:un['’]? ?|una )?(?:grande )?(?:modello (?:linguistico|di "
    r"linguaggio)|ia\b"
    r"|assistente|intelligenza artificiale)"
    r"|(?:как|я[ -—]*) ?(?:ии\b|большая |искусственный интеллект|языковая модель|ассистент)"
    r"|jako (?:duży )?(?:model językowy|sztuczna inteligencja|ai\b|asystent)"
    r"|(?:bir )?(?:yapay zek[aâ]|ai) (?:dil )?(?:modeli )?olarak|là một (?:mô hình ngôn ngữ|trợ "
    r"lý|ai\b)"
    r"|sebagai (?:sebuah )?(?:model bahasa|ai\b|asisten|kecerdasan buatan)"
    r"|作为(?:一个|一名|一款)?(?:大型|人工智能|ai|语言模型|助手)|作為(?:一個|一名)?(?:大型|人工智慧|ai|語言模型)"
    r"|(?:私は)?(?:ai|人工知能|大規模言語モデル|言語モデル)(?:アシスタント|言語モデル)?(?:として|です|なので)"
    r"|(?:저는 )?(?:ai|인공지능|인공 지능)\s?(?:언어 ?모델|어시스턴트)?(?:로서|로써|이므로)"
    r"|(?:كنموذج|بصفتي (?:نموذج|مساعد|ذكاء)|أنا نموذج)|एक (?:एआई|ai|कृत्रिम|बड़े भाषा|भाषा मॉडल)"
    r"|به عنوان یک (?:مدل|هوش)",
    re.IGNORECASE,
)

# --- the prompt's own words

_CONTROL = re.compile(
    r"<\|[^|<>]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|mask)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|</?(?:answer|response|output|final|result)>",
    re.IGNORECASE,
)
_NEXT_TURN = re.compile(
    r"\W*(?:question|questions|frage|pregunta|pergunta|domanda|вопрос|问题|問題|質問)\s*\d*\s*:"
    r"|\W*(?:user|human|system)\s*:"
    r"|\W*q\s*\d*\s*:\s*(?:$|(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does"
    r"|did|in|on)\b)",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"\W*(?:### ?(?:response|instruction|input)\b\W*|(?:assistant|user|system)\s*\n.*)",
    re.IGNORECASE,
)
_ROLE_NAME = re.compile(r"\s*(?:assistant|user|system|model|human)\s*", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"\{+[a-z_]\w*\}+|[\[<(]\s*"
    r"(?:(?:insert|enter|write|your|the|a|short|correct|final|add|type|fill in)\s+)*"
    r"(?:answer|question|response|blank|placeholder|draft|critique|name|text|word|words|value|here)"
    r"(?:\s+(?:goes )?here)?\s*[\]>)]|(?:insert|enter|write|type) (?:your |the |an )?answer(?: "
    r"here)?\W*"
    r"|your answer(?: here)?\W*|\[[a-z][a-z' ]{1,40}\]|<(?:insert|enter|your|the) [\w ]+>"
    r"|(?:answers?|response|output|result)\s*[^\w\s.!?'\"]+|lorem ipsum\b.*|(?-i:TODO|TBD|XXX+)\W*",
    re.IGNORECASE,
)
_LINE_LABEL = re.compile(r"\W*[^\W\d_][\w ]{0,24}:\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
MIN_RUN = 3  # words of an instruction that an answer does not have by chance

# --- questions

_YES_NO = re.compile(rf"\W*(?:{AUXILIARY_VERB})(?:n['’]t)?\b", re.IGNORECASE)
_IS_QUESTION = re.compile(
    rf"(?:{QUESTION_WORD})(?:['’]s)?\b.*\?\W*$|(?:{AUXILIARY_VERB})\b.*\?\W*$", re.IGNORECASE
)
_BEGINS_QUESTION = re.compile(
    rf"(?i:{QUESTION_WORD})(?:['’]s| (?:{AUXILIARY_VERB}|many|much)) \w+ \w+"
)
_ASKS_FOR_TITLE = re.compile(
    r"\b(?:title|titled|song|single|album|film|movie|play|book|novel|poem|series|show|sitcom|episode|game|musical|opera"
    r"|sketch|phrase|quote|line|slogan|motto|question|riddle|catchphrase|headline|meme|called|named?|says?|said|asks?"
    r"|asked|words?)\b",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\bor\b|\bwhich of\b|\bvs\.?(?!\w)|\bversus\b", re.IGNORECASE)
_ASKS_FOR_SIGN = re.compile(
    r"\b(?:symbols?|signs?|tags?|characters?|punctuation|operators?|emoji|emoticon|keys?|marks?|markup|notation|glyph"
    r"|html|accent|diacritic|typed?|written|abbreviat\w+)\b",
    re.IGNORECASE,
)
_WIDE = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"
)
_BLANK = frozenset("\u115f\u1160\u2800\ufffd")  # letters and signs that show nothing
# Words that stay small within a title.
_SMALL = frozenset(listed("an and as at but by for from in into of on or over the to with re"))
# Words that tie an answer to its question and say nothing: "So I think ...".
_CONNECTIVES = frozenset(listed("so well okay ok thus hence therefore then now i think believe"))
MIN_COVERED = 2 / 3  # of a question: an answer that repeats so much and no more says nothing


def non_answer(question: str, answer: str, prompt: str | tuple[Message, ...] = "") -> str | None:
    """Return why a text is no answer to a question, or None if it may be one.

    `prompt` is that of the model, filled in. An answer that follows a thought counts as if it stood
    alone.
    """
    begun = thought(answer)
    if begun:
        if not begun.answer:
            return THOUGHT
        answer = begun.answer
    text = unicodedata.normalize("NFKC", answer).strip()
    # without the control tokens of chat templates: "<|im_end|>"
    plain = _CONTROL.sub(" ", text).strip()
    if plain != text and (not plain or _ROLE_NAME.fullmatch(plain)):
        return None if _ASKS_FOR_SIGN.search(question) else PROMPT
    if not _says_something(question, plain):
        return EMPTY
    if _NEXT_TURN.match(plain) or _ROLE.fullmatch(plain):
        return PROMPT
    plain = _without_labels(plain)
    bare = plain.strip(" \t\r\n\"“”„«»‘’'`*_")
    if not bare or _PLACEHOLDER.fullmatch(bare):
        return PROMPT
    return (
        _assistant(question, bare)
        or _repeated(question, bare, plain)
        or _of_prompt(question, bare, prompt)
    )


def _without_labels(text: str) -> str:
    """Return a text without the labels that it begins with: "Answer: The answer is: Paris"."""
    label = LABEL.match(text)
    while label:
        text = text[label.end() :].strip()
        label = LABEL.match(text)
    return text


def _says_something(question: str, text: str) -> bool:
    """Return whether a text has a letter, a digit, or a sign that can be an answer ("+", "€")."""
    if any(char.isalnum() and char not in _BLANK for char in text):
        return True
    signs = [
        char for char in text if not char.isspace() and char not in _BLANK and char.isprintable()
    ]
    if signs and _ASKS_FOR_SIGN.search(question):
        return True
    kinds = {unicodedata.category(char) for char in signs} & {"Sm", "Sc", "So"}
    return (
        bool(kinds) and set(signs) - set("|~") != set() and (len(signs) < 3 or len(set(signs)) > 1)
    )


def _assistant(question: str, text: str) -> str | None:
    """Return why a text is an assistant's phrase before, or in place of, an answer."""
    if _ALOUD.match(text):
        return THOUGHT
    if _REFUSAL.match(text) or _REFUSES_ELSEWHERE.match(text):
        return REFUSAL
    if (
        _BOILERPLATE.match(text)
        or _ELSEWHERE.match(text)
        or _ASKS_BACK.match(text)
        or _GREETING.match(text)
    ):
        return BOILERPLATE
    if _ASSENT.fullmatch(text) and not _YES_NO.match(question):
        return BOILERPLATE
    return None


def _repeated(question: str, text: str, quoted: str) -> str | None:
    """Return why a text says the question again, or asks another."""
    asked, words = _words(question), _words(text)
    has_no_other_word = _within(asked, words) and set(words) <= set(asked)
    is_repeated = words == asked or has_no_other_word
    # one word may be an answer: "Which word ...? Word"
    if asked and is_repeated and (len(words) > 1 or "?" in text):
        return REPETITION
    if _WIDE.search(text):
        whole, part = "".join(asked), "".join(words)
        if part in whole and len(part) >= MIN_COVERED * len(whole):
            return REPETITION
    is_quoted = quoted[:1] in "\"“«‘'"
    if (
        len(words) > 1
        and not (is_quoted or _titled(text) or _ASKS_FOR_TITLE.search(question))
        and (_IS_QUESTION.match(text) or _BEGINS_QUESTION.match(text))
    ):
        return QUESTION
    if not _YES_NO.match(question) and not _CHOICE.search(question) and _restates(question, text):
        return REPETITION
    return None


def _restates(question: str, text: str) -> bool:
    """Return whether a text says most of a question, in its order, and nothing else.

    "The capital of Poland is" does.
    """
    asked = content(question)
    words = [word for word in content(text) if word not in _CONNECTIVES]
    covers_most = len(words) > 1 and len(words) >= MIN_COVERED * len(asked)
    return covers_most and _within(words, asked)


def _titled(text: str) -> bool:
    """Return whether a text is written as titles are: all but small words have capitals."""
    words = re.findall(r"[^\W\d_]+", text)[1:]  # the first has a capital in any sentence
    telling = [word for word in words if len(word) > 1 and word not in _SMALL]
    return bool(telling) and all(word[0].isupper() for word in telling)


def _of_prompt(question: str, text: str, prompt: str | tuple[Message, ...]) -> str | None:
    """Return whether a text is a sentence of the prompt, or part of its instruction.

    The answers of examples in the prompt ("Answer: Jupiter") may be right for other questions.
    """
    words = _words(text)
    if len(words) < MIN_RUN:
        return None
    for sentence, is_instruction in _prompt_sentences(question, prompt):
        if words == sentence:
            return PROMPT
        if is_instruction and (_within(words, sentence) or _within(sentence, words)):
            return PROMPT
    return None


def _prompt_sentences(
    question: str, prompt: str | tuple[Message, ...]
) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of each sentence of a prompt, and whether it instructs the model."""
    parts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    for part in parts:
        for line in part.splitlines():
            if LABEL.match(line):
                continue
            label = _LINE_LABEL.match(line)
            if label:
                if question not in line:
                    yield _words(line[label.end() :]), False
                continue
            instruction = question not in part or isinstance(prompt, str)
            for sentence in _SENTENCE_END.split(line.replace(question, "") if question else line):
                # after a colon stands the text that may be written
                words = _words(sentence.partition(":")[0])
                if len(words) >= MIN_RUN:
                    yield words, instruction


def _words(text: str) -> list[str]:
    """Return the words of a text without case, articles and punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return [word for word in re.findall(r"\w+(?:'\w+)*", folded) if word not in ("a", "an", "the")]


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Return whether the words of `part` stand in `whole`, one after the other."""
    size = len(part)
    if not size:
        return False
    starts = range(len(whole) - size + 1)
    return any(list(whole[start : start + size]) == list(part) for start in starts)
