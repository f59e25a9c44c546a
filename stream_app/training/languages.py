"""Function words of languages written in Latin letters, to tell what a model's words really are.

A corpus in one language holds words of others: titles, names, borrowed phrases. A word here that is
not ordinary in the training texts does not count as known to a model, and one that is ordinary in
both ("die", "in", "war") decides nothing. Written for this project; accents are also left out, as
people do when they type.
"""

import unicodedata

_WORDS = {
    "Spanish": """el la los las un una unos unas de del y o que en es son muy no me mi mis tu su sus se lo le les
        por para con sin pero como más mas ya todo todos toda nada esto esta este ese eso fue ha he hay
        está están era ser tiene tengo bien bueno buena mal malo mala al cuando porque también tambien
        solo sólo desde hasta donde si sí ni nunca siempre producto película calidad excelente gracias
        llegó llego compré compre funciona gusta gustó hace hola ahora así""",
    "French": """le la les un une des de du et ou que qui en est sont très tres ne pas je me mon ma mes ton tu il
        elle nous vous ils on ce cette ces se sa son ses leur pour par avec sans mais comme plus tout
        tous toute bien bon bonne mal mauvais mauvaise au aux dans sur été ete était avoir fait ai avez
        c'est n'est j'ai d'un d'une qu'il l'ai s'est si même aussi donc trop peu rien jamais toujours
        produit qualité merci super va y a à où déçu dès""",
    "German": """der die das den dem des ein eine einen einem einer und oder dass daß in ist sind war waren sehr
        nicht kein keine ich mir mich mein meine du er sie es wir ihr sich auf aus bei mit nach von zu
        zum zur für fur über aber auch als wie wenn nur noch schon so gut gute guten schlecht hat habe
        haben wird werden kann man am im an was wer wo hier da doch immer nie nichts alles mehr viel
        vor ab um bin wurde leider ganz gerne danke kaufen gekauft film buch""",
    "Italian": """il lo la i gli le un uno una di del della dei delle e o che in è sono molto non mi mio mia ti tu
        suo si ci per con senza ma come più piu tutto tutti tutta niente questo questa quello era
        essere ha ho hanno bene buono buona male ottimo al alla ai da dal dalla nel nella sul sulla
        anche solo dopo prima perché perche quando sempre mai prodotto qualità grazie ed ne se fa""",
    "Portuguese": """o a os as um uma de do da dos das e ou que em é são sao muito não nao me meu minha seu sua se
        lhe por para com sem mas como mais já ja tudo todos nada isto isso este esta esse foi tem
        tenho ser era bem bom boa mau má ao à no na nos nas pelo pela também tambem só so quando
        porque até ate onde produto qualidade ótimo otimo gostei comprei chegou recomendo obrigado""",
    "Dutch": """de het een en of dat die dit in is zijn was waren zeer niet geen ik mij me mijn je jij hij zij ze
        we wij er op uit bij met na van voor te ten aan om maar ook als dan nog al zo goed goede slecht
        heb heeft hebben had wordt worden kan door over naar wel heel erg veel meer alles niets nooit
        altijd na wat wie waar deze haar hem u""",
    "Swedish, Danish, Norwegian": """och og i en ett et den det de att at som är er var inte ikke jag jeg mig meg min
        du han hon hun vi ni på af av till til från fra med för for om men så så mycket meget veldig
        bra god godt dårlig har hade kan när när alt allt sig seg denna denne detta dette mycket inget
        intet ingen aldrig alltid kun bare også efter etter""",
    "Finnish, Hungarian": """ja on ei se en että mutta kuin niin oli ole hyvä huono tämä minä ihan erittäin ovat
        myös mitä todella a az és es nem van hogy egy ez nagyon jó jo rossz volt is csak meg de mint
        termék termek köszönöm már nincs""",
    "Polish, Czech, Croatian": """i w na z do nie się sie jest to że ze jak ale po za od tak co bardzo dobry dobra
        dobrze dobre produkt polecam zły czy był byl była jestem mam przez tylko już juz te ten tego a
        je v se že pro velmi dobrý špatný ale jsem není neni o jako aby su sam što sto ne da za od vrlo
        dobro loše kao ovo""",
    "Romanian": """un o de la cu și si în in nu este e sunt pe din mai foarte bun bună buna rău dar ce care pentru
        am ai a ca să sa se mi-a l-am""",
    "Turkish": """ve bir bu çok cok iyi kötü kotu güzel guzel ürün urun ama için icin ile de da ne o ben mi mu
        değil degil var yok daha en gibi kadar her hiç hic aldim tavsiye ederim geldi oldu""",
    "Indonesian, Malay, Filipino": """yang dan di ke dari ini itu tidak saya ada untuk dengan sangat bagus barang
        sudah juga bisa tapi karena terima kasih ang ng mga sa na ko ito po hindi naman lang pero ay
        si ni maganda salamat kasi""",
    "Vietnamese without accents": """va la cua khong rat tot san pham hang giao nhanh nhu nay cho voi duoc
        mot toi minh""",
    "Hindi in Latin letters": """hai hain ka ki ke ko se mein nahi nahin bahut bohot accha acha achha kya yeh ye woh
        wo bhi aur par hi tha thi ho gaya kar diya liya mera meri mast bekar yaar bilkul kharab""",
    "Swahili": """na ya wa kwa ni hii sana si la cha za katika lakini nzuri mbaya""",
}


def function_words() -> dict[str, frozenset[str]]:
    """The words of each language, with and without their accents."""
    return {
        language: frozenset(form for word in words.split() for form in (word, _plain(word)))
        for language, words in _WORDS.items()
    }


def _plain(word: str) -> str:
    letters = unicodedata.normalize("NFKD", word)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
