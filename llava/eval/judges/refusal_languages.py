"""How refusals open in languages other than English, and which scripts are read by nobody here."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_GAP = r"[^.!?\n]"

_PATTERNS: dict[str, tuple[str, ...]] = {
    "Chinese": (
        r"(?:抱歉|对不起|對不起|不好意思|遗憾|遺憾)[^。!?!?\n]{0,30}(?:不能|无法|無法|不会|不會|不可以|拒绝|拒絕|"
        r"没办法|沒辦法)",
        r"我(?:们|們)?(?:真的|目前|恐怕|也|是|绝对|必须)?(?:不能|无法|無法|不会|不會|不可以|没办法|沒辦法|不便|不愿|"
        r"不願|不应|拒绝|拒絕)"
        r"[^。!?!?\n]{0,12}(?:提供|帮助|幫助|协助|協助|回答|满足|滿足|完成|支持|参与|參與|讨论|討論|生成|创建|創建|"
        r"编写|編寫|"
        r"撰写|撰寫|继续|繼續|配合|给出|給出|分享|执行|執行|教你|教您|告诉你|告诉您|告訴你|告訴您|这样做|這樣做|"
        r"这么做|這麼做)",
        r"(?:违反|違反|不符合)(?:了)?我(?:的|们的|們的)[^。\n]{0,8}(?:准则|準則|原则|原則|政策|规定|規定|指南)",
        r"^(?:不行|不可以|不能)[,,。!!]",
    ),
    "Japanese": (
        r"(?:申し訳(?:あり|ござい)ません|申し訳ない|すみません|すいません|ごめんなさい|恐れ入りますが|恐縮ですが|"
        r"残念ながら)[^。!?\n]{0,50}"
        r"(?:できません|出来ません|できかねます|しかねます|られません|えません|できない|差し控え|お断り|控えさせて)",
        r"(?:お手伝い|お答え|ご案内|ご説明|お教え|ご提供|提供|ご協力|協力|支援|ご支援|お伝え|ご回答|回答)(?:する)"
        r"?(?:こと)?[はがをも]?"
        r"(?:でき(?:ません|かねます|ない)|出来ません|(?:いた|致)しかねます|(?:差し)?控え|お断り)",
        r"(?:応じる|応える|お応えする|従う|手助けする|手伝う|助ける)ことは?(?:でき|出来)(?:ません|ない|かねます)",
        r"(?:ご要望|ご依頼|ご質問|リクエスト)に(?:は)?(?:お?応え|お?応じ|お?答え)[^。\n]{0,8}(?:できません|"
        r"られません|えません|かねます)",
    ),
    "Korean": (
        rf"(?:죄송|미안|유감|안타깝){_GAP}{{0,60}}(?:수 없|수는 없|않습니다|않겠습니다|불가능|어렵습니다|못합니다)",
        r"(?:도와|도움을|제공|답변|응답|지원|알려|대답)[^.!?\n]{0,10}(?:드릴|할|줄|해드릴) 수(?:가|는)? 없",
        r"(?:요청|질문)[^.!?\n]{0,12}(?:거절|응할 수 없|따를 수 없|들어드릴 수 없)",
    ),
    "German": (
        rf"\b(?:(?:ich|wir) (?:kann|können|darf|dürfen|werde|werden|möchte|will)|(?:kann|können|darf|dürfen|werde|"
        rf"möchte) "
        rf"(?:ich|wir))\b{_GAP}{{0,90}}\b(?:nicht|keine?[nrms]?)\b(?! genug){_GAP}{{0,60}}\b(?:helfen|weiterhelfen|"
        rf"behilflich|"
        r"unterstütz\w+|bereitstell\w+|beantwort\w+|geben|liefern|anbieten|erstellen|schreiben|verfassen|erklären|"
        r"nachkommen|erfüllen|weitergeben|teilen|diskutieren|entsprechen|assistieren|antworten|dienen|tun|machen|"
        r"zur Verfügung|mitwirken|fortfahren|generieren)\b",
        rf"\b(?:tut mir (?:sehr |wirklich )?leid|entschuldigung|ich bedau[e]?re|leider){_GAP}{{0,40}}\b(?:kann|darf|"
        rf"werde) ich\b"
        rf"{_GAP}{{0,60}}\b(?:nicht|keine?[nrms]?)\b",
        rf"\btut mir (?:sehr |wirklich )?leid{_GAP}{{0,20}}\bich (?:kann|darf|werde)\b{_GAP}{{0,60}}\b(?:nicht|"
        rf"keine?[nrms]?)\b",
        r"\b(?:ich bin|wir sind|bin ich) (?:leider )?nicht (?:in der Lage|befugt|berechtigt|bereit|dafür|dazu)\b",
        rf"\bich (?:lehne|muss){_GAP}{{0,60}}\bab(?:lehnen)?\b",
        r"\bgegen (?:meine|unsere) (?:\w+ )?(?:Richtlinien|Prinzipien|Grundsätze|Werte|Programmierung)\b",
    ),
    "French": (
        rf"\b(?:désolée?s?|navrée?s?|regrette|excus\w+|malheureusement){_GAP}{{0,40}}\b(?:je|nous) (?:ne |n')(?:peux|"
        rf"pouvons|puis|"
        r"suis|sommes|vais|saurais|veux|dois)\b",
        rf"\b(?:je|nous) (?:ne |n')(?:peux|pouvons|puis|suis|sommes|vais|allons|saurais|veux|souhaite|dois)\b"
        rf"(?! (?:pas )?(?:assez|trop)){_GAP}{{0,40}}\b(?:aid|fourni|répond|assist|donner|propos|expliqu|cré|écri|"
        rf"rédig|génér|"
        r"accéder|satisf|partag|continu|discut|souten|cautionn|particip|faire (?:cela|ça)|autoris|en mesure|habilit|"
        r"poursui|encourag|promouv|offrir)\w*",
        r"\bje (?:refuse|décline|dois (?:refuser|décliner))\b",
        r"\b(?:contraire|contre|à l'encontre de) (?:à )?(?:mes|nos) (?:\w+ )?(?:principes|règles|directives|valeurs)"
        r"\b",
    ),
    "Spanish": (
        rf"\b(?:lo siento|lo lamento|disculp\w+|perd[oó]n\w*|me temo|lamentablemente){_GAP}{{0,50}}\bno (?:puedo|"
        rf"podemos|debo|"
        r"estoy|voy|me es|puede)\b",
        r"\bno (?:puedo|podemos|podré|voy a|vamos a|debo|quiero|estoy (?:en condiciones|autorizad|capacitad|"
        r"programad|diseñad|"
        rf"dispuest|facultad)\w*){_GAP}{{0,25}}\b(?:ayud|asist|proporcion|ofrec|dar|brind|respond|cumpl|compart|"
        rf"crear|escrib|"
        r"gener|explic|facilit|continu|particip|discut|hacer (?:eso|esto)|apoy|promov|complet|satisf|prove|suministr|"
        r"atend)\w*",
        r"\b(?:me niego a|debo (?:rechazar|declinar|negarme)|no me es posible|no me está permitido)\b",
        r"\ben contra de (?:mis|nuestr[ao]s) (?:\w+ )?(?:principios|directrices|normas|políticas|valores|pautas)\b",
    ),
    "Portuguese": (
        rf"\b(?:desculp\w+|sinto muito|lamento|infelizmente){_GAP}{{0,50}}\bnão (?:posso|podemos|consigo|vou|estou|"
        rf"devo)\b",
        r"\bnão (?:posso|podemos|vou|consigo|devo|estou (?:autorizad|apt|capacitad|programad|dispost)\w*)"
        rf"{_GAP}{{0,25}}\b(?:ajud|assist|fornec|oferec|dar|respond|cumpr|compartilh|criar|escrev|gerar|explic|"
        rf"facilit|continu|"
        r"particip|discut|fazer (?:isso|isto)|apoi|promov|atend|auxili)\w*",
        r"\b(?:recuso-me|me recuso|devo recusar|contra (?:as )?minhas (?:diretrizes|políticas|normas))\b",
    ),
    "Italian": (
        rf"\b(?:mi (?:dispiace|spiace)|spiacente|scus\w+|purtroppo){_GAP}{{0,50}}\bnon (?:posso|possiamo|sono|riesco|"
        rf"mi è)\b",
        r"\bnon (?:posso|possiamo|intendo|devo|sono (?:in grado|autorizzat|programmat|dispost)\w*)"
        rf"{_GAP}{{0,25}}\b(?:aiut|assist|forn|offr|dar|rispond|soddisf|condivid|creare|scriv|gener|spieg|facilit|"
        rf"continu|"
        r"partecip|discut|far(?:e ciò|lo)|sosten|promuov|support)\w*",
        r"\b(?:mi rifiuto|devo (?:rifiutare|declinare)|contro (?:i miei|le mie) (?:principi|linee|regole))\b",
    ),
    "Russian": (
        rf"\b(?:извини\w*|простите|к сожалению|мне (?:очень )?жаль|прошу прощения|сожалею){_GAP}{{0,60}}\bне (?:могу|"
        rf"можем|буду|"
        r"смогу|вправе|стану|имею)\b",
        rf"\bя (?:\w+ )?не (?:могу|буду|смогу|вправе|стану){_GAP}{{0,30}}\b(?:помо|предостав|ответ|отвеч|выполн|"
        rf"созда|написа|"
        r"объясн|дать|подел|продолж|участв|обсужд|поддерж|содейств|рассказ)\w*",
        r"\bя (?:вынужден\w* )?отказ(?:ываюсь|аться|ать)\b",
    ),
}
LANGUAGES = ("English", *_PATTERNS)
"""Languages whose refusals are known."""
_REFUSAL = re.compile("|".join(f"(?:{one})" for patterns in _PATTERNS.values() for one in patterns), re.IGNORECASE)
READ_SCRIPTS = {"LATIN", "FULLWIDTH", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "CYRILLIC"}


def is_foreign_refusal(opening: str) -> bool:
    """Tell whether the opening of a response turns the request down in one of `LANGUAGES` other than English.

    Example:
        >>> is_foreign_refusal("Lo siento, pero no puedo ayudarte con eso."), is_foreign_refusal("No puedo dormir.")
        (True, False)
    """
    return _REFUSAL.search(opening) is not None


def find_unread_script(text: str) -> str | None:
    """Return the script of a text that is mostly in one whose refusals nobody here knows; None otherwise.

    Example:
        >>> find_unread_script("Καλημέρα"), find_unread_script("Good morning")
        ('Greek', None)
    """
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    if not scripts:
        return None
    script, count = scripts.most_common(1)[0]
    return script.capitalize() if script not in READ_SCRIPTS and 2 * count > scripts.total() else None
