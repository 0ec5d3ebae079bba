"""Owns the example data set: made-up customer messages in four languages and the JSON a help desk wants.

Run as: python examples/make_support_tickets.py

It writes support_tickets.jsonl (400 rows to train on) and support_tickets.heldout.jsonl (80 rows to test
with) beside itself, the same bytes at every run. The shop, its customers, streets and order numbers are
invented. What makes a label is always in the message:

- intent: what the customer asks for. A broken thing is `damaged`; `refund` and `exchange` are named as such.
- order: a letter and four digits, however written, as "A-1234"; null where the message has none.
  Prices, dates, sizes, telephone numbers and postcodes are there to be left alone.
- urgency: `high` where time is said to be short, `low` where it is said to be plenty, else `normal`.
- language: en, de, fr or es.

The held-out rows share no message, product, customer name, town or order number with the training rows,
and a third of them ask in words that the training rows never use.
"""

import json
import random
import unicodedata
from pathlib import Path

SEED = 2026
TRAIN_ROWS, HELDOUT_ROWS = 400, 80
INTENTS = ("refund", "exchange", "delivery_status", "damaged", "cancel", "invoice", "address_change", "account")
LANGUAGES = ("en", "de", "fr", "es")

# English, German, French, Spanish; the letter is the noun's gender. The last rows are held back.
THINGS = [
    line.split(", ")
    for line in """\
teapot, f Teekanne, f théière, f tetera
lantern, f Laterne, f lanterne, m farol
desk lamp, f Schreibtischlampe, f lampe de bureau, f lámpara de escritorio
cuckoo clock, f Kuckucksuhr, f pendule à coucou, m reloj de cuco
ukulele, f Ukulele, m ukulélé, m ukelele
fruit bowl, f Obstschale, f corbeille à fruits, m frutero
chess set, n Schachspiel, m jeu d'échecs, m juego de ajedrez
picnic basket, m Picknickkorb, m panier de pique-nique, f cesta de picnic
garden gnome, m Gartenzwerg, m nain de jardin, m gnomo de jardín
kettle, m Wasserkocher, f bouilloire, m hervidor
rocking horse, n Schaukelpferd, m cheval à bascule, m caballito balancín
snow globe, f Schneekugel, f boule à neige, f bola de nieve
telescope, n Teleskop, m télescope, m telescopio
bird house, n Vogelhaus, m nichoir, f casita para pájaros
watering can, f Gießkanne, m arrosoir, f regadera
music box, f Spieluhr, f boîte à musique, f caja de música
umbrella, m Regenschirm, m parapluie, m paraguas
typewriter, f Schreibmaschine, f machine à écrire, f máquina de escribir
model ship, n Modellschiff, f maquette de bateau, f maqueta de barco
coffee mill, f Kaffeemühle, m moulin à café, m molinillo de café""".splitlines()
]
CLOTHES = [
    line.split(", ")
    for line in """\
raincoat, f Regenjacke, m imperméable, m impermeable
cardigan, f Strickjacke, m gilet, f rebeca
dressing gown, m Bademantel, f robe de chambre, f bata
jumper, m Pullover, m pull, m jersey
dress, n Kleid, f robe, m vestido
kimono, m Kimono, m kimono, m kimono
poncho, m Poncho, m poncho, m poncho""".splitlines()
]
THINGS_HELD_BACK, CLOTHES_HELD_BACK, NAMES_HELD_BACK, PLACES_HELD_BACK = 5, 2, 8, 2

NAMES = [
    "Marta",
    "Jonas",
    "Aisha",
    "Pierre",
    "Lucía",
    "Tom",
    "Greta",
    "Mehmet",
    "Chloé",
    "Diego",
    "Hannah",
    "Olek",
    "Priya",
    "Bruno",
    "Inés",
    "Callum",
    "Fatou",
    "Lotte",
    "Yuki",
    "Rafael",
    "Noor",
    "Elsa",
    "Henri",
    "Paloma",
    "Anouk",
    "Gustav",
    "Carmen",
    "Ravi",
    "Maëlle",
    "Dylan",
    "Frieda",
    "Pablo",
]

# Each sentence's slots are named for what fills them: {den} gives "den Gartenzwerg" or "die Teekanne", {le}
# "le", "la" or "l'" and the noun, {e} and {o} the ending that agrees with it. {ref} stands behind a
# product and {num} behind "order": they take the order number, or nothing where the row has none.
# The last line of each list of sentences is held back: only held-out rows say it.
BOOKS = {
    "en": {
        "refund": """\
I'd like my money back for the {item}{ref}, please.
Please refund the {item}{ref}, I have changed my mind.
I sent the {item}{ref} back two weeks ago and still haven't got my money.
You charged me twice for the {item}{ref}. Please pay one back.
The {item}{ref} looks nothing like the photo. I want a refund.
How do I return the {item}{ref} and get my money back?
The {item}{ref} is lovely but not for me, can I have the money back?""",
        "exchange": """\
The {item}{ref} is too small, can I swap it for a size {size}?
Could I exchange the {item}{ref} for the {colour} one?
I'd rather have the {item}{ref} in {colour} after all. Can we swap?
Please exchange the {item}{ref} for one size bigger.
The {item}{ref} fits my dog better than me. A size {size} instead, please?
Wrong colour! I want to change my {item}{ref} for a {colour} one.
Is it possible to swap the {item}{ref} for something larger, say a {size}?""",
        "delivery_status": """\
Where is my {item}{ref}?
When will the {item}{ref} arrive?
Has my order{num} been shipped yet?
The tracking for my {item}{ref} hasn't moved in days.
I'm still waiting for my {item}{ref}, any news?
The courier claims he dropped off the {item}{ref}, but nothing has arrived.
My {item}{ref} must be on a world tour. Do you know when it gets here?""",
        "damaged": """\
The {item}{ref} arrived broken.
My {item}{ref} came with a big crack in it.
I opened the parcel and found the {item}{ref} in pieces.
The box was crushed and so is the {item}{ref}.
There is a hole in my {item}{ref}, straight out of the box.
The {item}{ref} is scratched all over, and I only just unpacked it.
Sadly the {item}{ref} did not survive the journey.""",
        "cancel": """\
Please cancel my order{num}.
I want to cancel the {item}{ref} before it ships.
I ordered the {item}{ref} twice by mistake, please cancel one.
Stop the order{num}, please! My cat walked over the keyboard.
I've changed my mind: please don't send the {item}{ref}.
Can I still cancel the order{num}?
I no longer need the {item}{ref}, so please don't ship it.""",
        "invoice": """\
Please send me the invoice for the {item}{ref}.
I need a receipt for my order{num}.
My accountant wants an invoice for the {item}{ref}.
The invoice for my order{num} has the wrong company name on it.
I deleted the invoice for the {item}{ref}, could you send it again?
Where can I download the invoice for my order{num}?
The {item}{ref} came without an invoice, and the tax office wants one.""",
        "address_change": """\
We're moving: please send the {item}{ref} to {address}.
My new address is {address}.
Please deliver my order{num} to {address} instead.
I got the street wrong in my order{num}, it's {address}.
Can the {item}{ref} go to my mother's instead? Her address is {address}.
Please change the delivery address to {address}.
I don't live there any more! Ship the {item}{ref} to {address}.""",
        "account": """\
I can't log in, it says my password is wrong.
Please reset my password.
How do I delete my account?
My account is locked and I can't see my order{num}.
I'd like to change my user name to {nick}.
The link for a new password never arrives.
Your site no longer knows me: it rejects my password.""",
        "high": """\
It's urgent!
I need an answer today.
Please hurry, I leave tomorrow morning.
As soon as possible, please.
The wedding is on Saturday!
This can't wait.
Quick, the party is tomorrow!""",
        "low": """\
No rush.
It's not urgent.
Take your time.
Whenever you have a moment.
No hurry, I'm away until May.
Next week is fine too.
I'm really in no hurry.""",
        "ref": " (order {id})| from order {id}| (#{id})",
        "num": " {id}| no. {id}",
        "order": "My order number is {id}.|Order {id}.|It's order {id}.|Order no. {id}.",
        "no_order": "I can't find the order number, sorry.|I've lost the order number.",
        "bought": "I paid {pounds}.|It cost {pounds}.|I bought it on {day} {month}.",
        "aside": "You can call me on {phone}.|I've been a customer since {year}.|Love your shop, by the way."
        "|My cat says hello.|Sorry to bother you.|It's been raining here for days.",
        "hello": "Hi,|Hello,|Hello team,|Good morning,|Hi there,|Dear all,",
        "bye": "Thanks, {name}|Cheers, {name}|Best wishes, {name}|{name}|Many thanks!|Thanks!",
        "colour": "red|blue|green|black|yellow",
        "month": "January|March|April|June|October",
        "address": "{n} Larch Lane, {town}|{n} Harbour Street|{n} Mill Road",
        "town": "Little Yawning|Applewick|Port Marrow|Thistleham|Fernbury",
    },
    "de": {
        "refund": """\
Ich möchte für {den}{ref} mein Geld zurück.
Bitte erstatten Sie mir {den}{ref}, ich habe es mir anders überlegt.
Ich habe {den}{ref} vor zwei Wochen zurückgeschickt, das Geld ist noch nicht da.
Für {den}{ref} wurde zweimal abgebucht, bitte einmal erstatten.
{der}{ref} sieht ganz anders aus als auf dem Foto. Ich will mein Geld zurück.
Wie kann ich {den}{ref} zurückgeben und mein Geld bekommen?
{der}{ref} ist hübsch, aber nichts für mich. Bekomme ich mein Geld zurück?""",
        "exchange": """\
{der}{ref} ist zu klein, kann ich {ihn} gegen Größe {size} tauschen?
Könnte ich {den}{ref} gegen ein Modell in {colour} umtauschen?
Ich hätte {den}{ref} doch lieber in {colour}. Geht ein Umtausch?
Bitte tauschen Sie {den}{ref} eine Nummer größer um.
{der}{ref} passt meinem Hund besser als mir. Bitte stattdessen Größe {size}.
Falsche Farbe! Ich möchte {den}{ref} gegen ein Modell in {colour} tauschen.
Mir ist {der}{ref} zu weit, kann ich gegen Größe {size} tauschen?""",
        "delivery_status": """\
Wo bleibt {mein}{ref}?
Wann kommt {mein}{ref} an?
Ist meine Bestellung{num} schon verschickt?
Die Sendungsverfolgung für {den}{ref} bewegt sich seit Tagen nicht.
Ich warte immer noch auf {meinen}{ref}, gibt es Neuigkeiten?
Der Bote will {den}{ref} abgegeben haben, hier ist aber nichts angekommen.
{mein}{ref} macht wohl eine Weltreise. Wissen Sie, wann {er} ankommt?""",
        "damaged": """\
{der}{ref} ist kaputt angekommen.
{mein}{ref} hat einen großen Riss.
Beim Auspacken lag {der}{ref} in Stücken vor mir.
Der Karton war eingedrückt und {der}{ref} auch.
In {meinem}{ref} ist ein Loch, so kam {er} aus dem Karton.
{der}{ref} ist völlig verkratzt, und ich habe gerade erst ausgepackt.
{der}{ref} hat die Reise leider nicht überlebt.""",
        "cancel": """\
Bitte stornieren Sie meine Bestellung{num}.
Ich möchte {den}{ref} stornieren, bevor das Paket losgeht.
Ich habe {den}{ref} aus Versehen zweimal bestellt, bitte einmal stornieren.
Bitte stoppen Sie die Bestellung{num}! Meine Katze lief über die Tastatur.
Ich habe es mir anders überlegt: {den}{ref} bitte nicht verschicken.
Kann ich die Bestellung{num} noch stornieren?
{den}{ref} brauche ich nicht mehr, bitte nicht verschicken.""",
        "invoice": """\
Bitte schicken Sie mir die Rechnung für {den}{ref}.
Ich brauche einen Beleg für meine Bestellung{num}.
Meine Buchhaltung möchte eine Rechnung über {den}{ref}.
Auf der Rechnung zu meiner Bestellung{num} steht der falsche Firmenname.
Ich habe die Rechnung für {den}{ref} gelöscht, schicken Sie sie noch einmal?
Wo kann ich die Rechnung für meine Bestellung{num} herunterladen?
{der}{ref} kam ohne Rechnung, und das Finanzamt will eine sehen.""",
        "address_change": """\
Wir ziehen um: {den}{ref} bitte an diese Adresse: {address}.
Meine neue Adresse ist {address}.
Bitte liefern Sie meine Bestellung{num} an eine andere Adresse: {address}.
Bei meiner Bestellung{num} stimmt die Straße nicht, richtig ist {address}.
Kann {der}{ref} stattdessen zu meiner Mutter? Ihre Adresse ist {address}.
Bitte ändern Sie die Lieferadresse: {address}.
Dort wohne ich nicht mehr! Bitte liefern Sie {den}{ref} hierhin: {address}.""",
        "account": """\
Ich kann mich nicht einloggen, angeblich ist mein Passwort falsch.
Bitte setzen Sie mein Passwort zurück.
Wie lösche ich mein Konto?
Mein Konto ist gesperrt und ich sehe meine Bestellung{num} nicht mehr.
Ich möchte meinen Benutzernamen in {nick} ändern.
Der Link für ein neues Passwort kommt nie an.
Ihre Seite kennt mich nicht mehr: mein Passwort wird abgelehnt.""",
        "high": """\
Es ist dringend!
Ich brauche heute noch eine Antwort.
Bitte schnell, ich verreise morgen früh.
So bald wie möglich, bitte.
Am Samstag ist die Hochzeit!
Das kann nicht warten.
Schnell, morgen ist die Feier!""",
        "low": """\
Eilt nicht.
Es ist nicht dringend.
Lassen Sie sich Zeit.
Wenn Sie mal einen Moment haben.
Keine Eile, ich bin bis Mai verreist.
Nächste Woche reicht auch.
Ich habe wirklich keine Eile.""",
        "ref": " (Bestellung {id})| aus Bestellung {id}| (#{id})",
        "num": " {id}| Nr. {id}",
        "order": "Meine Bestellnummer ist {id}.|Bestellung {id}.|Es geht um Bestellung {id}.|Best.-Nr. {id}.",
        "no_order": "Die Bestellnummer finde ich leider nicht.|Die Bestellnummer habe ich verlegt.",
        "bought": "Bezahlt habe ich {euros}.|Gekostet hat das {euros}.|Gekauft habe ich am {day}. {month}.",
        "aside": "Sie erreichen mich unter {phone}.|Ich kaufe seit {year} bei Ihnen.|Ihr Laden ist übrigens toll."
        "|Meine Katze lässt grüßen.|Entschuldigen Sie die Störung.|Hier regnet es seit Tagen.",
        "hello": "Hallo!|Guten Tag!|Guten Morgen!|Liebes Team!|Moin!|Servus!",
        "bye": "Danke, {name}|Viele Grüße, {name}|Liebe Grüße, {name}|{name}|Vielen Dank!|Danke!",
        "colour": "Rot|Blau|Grün|Schwarz|Gelb",
        "month": "Januar|März|April|Juni|Oktober",
        "address": "Lindenweg {n}, {zip} {town}|Am Mühlbach {n}|Hafengasse {n}",
        "town": "Apfelhausen|Krähenbrück|Mondsheim|Fuchsmoor|Silberau",
    },
    "fr": {
        "refund": """\
Je voudrais un remboursement pour {le}{ref}.
Merci de me rembourser {le}{ref}, j'ai changé d'avis.
J'ai renvoyé {le}{ref} il y a deux semaines et je n'ai toujours pas mon argent.
{le}{ref} m'a été facturé{e} deux fois, merci de m'en rembourser un{e}.
{le}{ref} ne ressemble pas du tout à la photo. Je veux mon argent.
Comment rendre {le}{ref} et récupérer mon argent ?
{le}{ref} est joli{e}, mais pas pour moi. Pouvez-vous me rembourser ?""",
        "exchange": """\
{le}{ref} est trop petit{e}, puis-je l'échanger contre une taille {size} ?
Pourrais-je échanger {le}{ref} contre un modèle en {colour} ?
Finalement je préfère {le}{ref} en {colour}. Un échange est possible ?
Merci d'échanger {le}{ref} contre une taille au-dessus.
{le}{ref} va mieux à mon chien qu'à moi. Plutôt une taille {size}, s'il vous plaît.
Mauvaise couleur ! Je veux échanger {mon}{ref} contre un modèle en {colour}.
Je flotte dans {le}{ref}, puis-je échanger contre une taille {size} ?""",
        "delivery_status": """\
Où est {mon}{ref} ?
Quand est-ce que {mon}{ref} arrive ?
Ma commande{num} est-elle déjà partie ?
Le suivi de {mon}{ref} ne bouge plus depuis des jours.
J'attends toujours {mon}{ref}, avez-vous des nouvelles ?
Le livreur dit avoir déposé {le}{ref}, mais rien n'est arrivé ici.
{mon}{ref} doit faire le tour du monde. Savez-vous quand {il} arrive ?""",
        "damaged": """\
{le}{ref} est arrivé{e} cassé{e}.
{mon}{ref} a une grosse fissure.
En ouvrant le colis, j'ai trouvé {le}{ref} en morceaux.
Le carton était écrasé et {le}{ref} aussi.
Il y a un trou dans {mon}{ref}, dès la sortie du carton.
{le}{ref} est couvert{e} de rayures, et je viens de déballer.
Hélas, {le}{ref} n'a pas survécu au voyage.""",
        "cancel": """\
Merci d'annuler ma commande{num}.
Je veux annuler {le}{ref} avant l'envoi.
J'ai commandé {le}{ref} deux fois par erreur, merci d'en annuler un{e}.
Arrêtez la commande{num}, s'il vous plaît ! Mon chat a marché sur le clavier.
J'ai changé d'avis : n'envoyez pas {le}{ref}, merci.
Est-ce que je peux encore annuler la commande{num} ?
Je n'ai plus besoin {du}{ref}, ne l'envoyez pas.""",
        "invoice": """\
Merci de m'envoyer la facture {du}{ref}.
J'ai besoin d'un reçu pour ma commande{num}.
Mon comptable veut une facture pour {le}{ref}.
La facture de la commande{num} porte un mauvais nom de société.
J'ai supprimé la facture {du}{ref}, pouvez-vous la renvoyer ?
Où puis-je télécharger la facture de ma commande{num} ?
{le}{ref} est arrivé{e} sans facture, et les impôts m'en demandent une.""",
        "address_change": """\
Nous déménageons : envoyez {le}{ref} au {address}.
Ma nouvelle adresse est {address}.
Merci de livrer ma commande{num} plutôt au {address}.
La rue est fausse dans la commande{num}, c'est {address}.
{le}{ref} peut-{il} plutôt aller chez ma mère ? Son adresse : {address}.
Merci de changer l'adresse de livraison : {address}.
Je n'habite plus là-bas ! Livrez {le}{ref} au {address}.""",
        "account": """\
Impossible de me connecter, mon mot de passe serait faux.
Merci de réinitialiser mon mot de passe.
Comment supprimer mon compte ?
Mon compte est bloqué et je ne vois plus ma commande{num}.
Je voudrais changer mon nom d'utilisateur en {nick}.
Le lien pour un nouveau mot de passe n'arrive jamais.
Votre site ne me reconnaît plus : il refuse mon mot de passe.""",
        "high": """\
C'est urgent !
Il me faut une réponse aujourd'hui.
Vite, je pars demain matin.
Le plus vite possible, s'il vous plaît.
Le mariage est samedi !
Ça ne peut pas attendre.
Vite, la fête est demain !""",
        "low": """\
Rien ne presse.
Ce n'est pas urgent.
Prenez votre temps.
Quand vous aurez un moment.
Aucune urgence, je suis en voyage jusqu'en mai.
La semaine prochaine me va aussi.
Vraiment, ça ne presse pas.""",
        "ref": " (commande {id})| de la commande {id}| (#{id})",
        "num": " {id}| n° {id}",
        "order": "Mon numéro de commande est {id}.|Commande {id}.|C'est la commande {id}.|Commande n° {id}.",
        "no_order": "Je ne retrouve plus le numéro de commande.|J'ai perdu le numéro de commande.",
        "bought": "J'ai payé {euros}.|Prix : {euros}.|Achat du {day} {month}.",
        "aside": "Vous pouvez m'appeler au {phone}.|Je vous suis fidèle depuis {year}.|J'adore votre boutique, au fait."
        "|Mon chat vous salue.|Pardon de vous déranger.|Ici il pleut depuis des jours.",
        "hello": "Bonjour !|Bonsoir !|Salut !|Bonjour à tous !|Chère équipe !",
        "bye": "Merci, {name}|Cordialement, {name}|Bien à vous, {name}|{name}|Merci beaucoup !|Merci !",
        "colour": "rouge|bleu|vert|noir|jaune",
        "month": "janvier|mars|avril|juin|octobre",
        "address": "{n}, rue des Tilleuls, {zip} {town}|{n}, allée du Port|{n}, rue du Moulin",
        "town": "Pommeville|Lune-les-Bains|Saint-Corbeau|Renardière|Argentval",
    },
    "es": {
        "refund": """\
Quiero que me devuelvan el dinero {del}{ref}.
Por favor, reembólsenme {el}{ref}, he cambiado de idea.
Devolví {el}{ref} hace dos semanas y aún no tengo mi dinero.
Me han cobrado dos veces {el}{ref}. Devuélvanme un pago.
{el}{ref} no se parece nada a la foto. Quiero un reembolso.
¿Cómo devuelvo {el}{ref} y recupero mi dinero?
{el}{ref} es bonit{o}, pero no es para mí. ¿Me devuelven el dinero?""",
        "exchange": """\
{el}{ref} me queda pequeñ{o}, ¿puedo cambiarl{o} por una talla {size}?
¿Podría cambiar {el}{ref} por otr{o} en {colour}?
Al final prefiero {el}{ref} en {colour}. ¿Es posible un cambio?
Por favor, cámbienme {el}{ref} por una talla más.
{el}{ref} le queda mejor a mi perro que a mí. Mejor una talla {size}, por favor.
¡Color equivocado! Quiero cambiar {mi}{ref} por otr{o} en {colour}.
{el}{ref} me queda enorme, ¿me l{o} cambian por una talla {size}?""",
        "delivery_status": """\
¿Dónde está {mi}{ref}?
¿Cuándo llega {mi}{ref}?
¿Ya ha salido mi pedido{num}?
El seguimiento de {mi}{ref} no se mueve desde hace días.
Sigo esperando {mi}{ref}, ¿hay noticias?
El mensajero dice que dejó {el}{ref}, pero aquí no ha llegado nada.
{mi}{ref} debe de estar dando la vuelta al mundo. ¿Saben cuándo llega?""",
        "damaged": """\
{el}{ref} ha llegado rot{o}.
{mi}{ref} tiene una grieta enorme.
Al abrir el paquete encontré {el}{ref} en pedazos.
La caja venía aplastada y {el}{ref} también.
Hay un agujero en {mi}{ref}, recién sacad{o} de la caja.
{el}{ref} está llen{o} de arañazos, y acabo de abrir el paquete.
Por desgracia, {el}{ref} no ha sobrevivido al viaje.""",
        "cancel": """\
Por favor, cancelen mi pedido{num}.
Quiero cancelar {el}{ref} antes de que salga.
Pedí {el}{ref} dos veces por error, cancelen un{o}, por favor.
¡Paren el pedido{num}, por favor! Mi gato caminó sobre el teclado.
He cambiado de idea: no envíen {el}{ref}, por favor.
¿Todavía puedo cancelar el pedido{num}?
Ya no necesito {el}{ref}, así que no l{o} envíen.""",
        "invoice": """\
Por favor, envíenme la factura {del}{ref}.
Necesito un recibo de mi pedido{num}.
Mi contable quiere una factura por {el}{ref}.
La factura del pedido{num} lleva mal el nombre de la empresa.
Borré la factura {del}{ref}, ¿me la mandan otra vez?
¿Dónde descargo la factura de mi pedido{num}?
{el}{ref} llegó sin factura, y Hacienda me la pide.""",
        "address_change": """\
Nos mudamos: manden {el}{ref} a {address}.
Mi nueva dirección es {address}.
Por favor, entreguen mi pedido{num} en otra dirección: {address}.
Puse mal la calle en el pedido{num}, es {address}.
¿Puede ir {el}{ref} a casa de mi madre? Su dirección es {address}.
Cambien la dirección de entrega a {address}, por favor.
¡Ya no vivo allí! Envíen {el}{ref} a {address}.""",
        "account": """\
No puedo entrar, dice que mi contraseña es incorrecta.
Por favor, restablezcan mi contraseña.
¿Cómo borro mi cuenta?
Mi cuenta está bloqueada y no veo mi pedido{num}.
Quiero cambiar mi nombre de usuario a {nick}.
El enlace para una nueva contraseña no llega nunca.
Su página ya no me reconoce: rechaza mi contraseña.""",
        "high": """\
¡Es urgente!
Necesito una respuesta hoy.
Dense prisa, salgo mañana por la mañana.
Lo antes posible, por favor.
¡La boda es el sábado!
Esto no puede esperar.
¡Rápido, la fiesta es mañana!""",
        "low": """\
No hay prisa.
No es urgente.
Tómense su tiempo.
Cuando tengan un momento.
Sin prisa, estoy de viaje hasta mayo.
La semana que viene también vale.
De verdad que no tengo prisa.""",
        "ref": " (pedido {id})| del pedido {id}| (#{id})",
        "num": " {id}| n.º {id}",
        "order": "Mi número de pedido es {id}.|Pedido {id}.|Es el pedido {id}.|Pedido n.º {id}.",
        "no_order": "No encuentro el número de pedido.|He perdido el número de pedido.",
        "bought": "Pagué {euros}.|Me costó {euros}.|L{o} compré el {day} de {month}.",
        "aside": "Pueden llamarme al {phone}.|Soy cliente desde {year}.|Me encanta su tienda, por cierto."
        "|Mi gato les manda saludos.|Perdonen la molestia.|Aquí llueve desde hace días.",
        "hello": "¡Hola!|Buenos días.|Buenas tardes.|Hola a todos.|¡Buenas!",
        "bye": "Gracias, {name}|Saludos, {name}|Un saludo, {name}|{name}|¡Muchas gracias!|¡Gracias!",
        "colour": "rojo|azul|verde|negro|amarillo",
        "month": "enero|marzo|abril|junio|octubre",
        "address": "calle del Olmo {n}, {zip} {town}|paseo del Puerto {n}|calle Molino {n}",
        "town": "Manzanar del Río|Villacuervo|Luna de la Sierra|Zorreda|Platares",
    },
}
NICKS = "teapot_fan|moonwalker|gnome42|captain_sock|blue_heron|lady_pumpkin"


def noun_slots(language: str, noun: str) -> dict[str, str]:
    """The product with each article that the language's sentences ask for, and the endings that agree with it."""
    if language == "en":
        return {"item": noun}
    gender, noun = noun.split(" ", 1)
    feminine = gender == "f"
    if language == "de":
        pick = "mfn".index(gender)
        forms = {
            "der": "der die das",
            "den": "den die das",
            "mein": "mein meine mein",
            "meinen": "meinen meine mein",
            "meinem": "meinem meiner meinem",
        }
        slots = {slot: f"{articles.split()[pick]} {noun}" for slot, articles in forms.items()}
        return slots | {"er": ["er", "sie", "es"][pick], "ihn": ["ihn", "sie", "es"][pick]}
    if language == "fr":
        elides = noun[0] in "aeiou"
        le = "l'" if elides else "la " if feminine else "le "
        du = "de la " if feminine else "du "
        return {
            "le": le + noun,
            "du": ("de l'" if elides else du) + noun,
            "mon": ("ma " if feminine else "mon ") + noun,
            "e": "e" if feminine else "",
            "il": "elle" if feminine else "il",
        }
    return {
        "el": ("la " if feminine else "el ") + noun,
        "del": ("de la " if feminine else "del ") + noun,
        "mi": "mi " + noun,
        "o": "a" if feminine else "o",
    }


def as_typed_in_a_hurry(text: str, language: str, rng: random.Random) -> str:
    """Lower case, no opening marks and, half of the time, no accents."""
    text = text.lower().replace("¿", "").replace("¡", "")
    if rng.random() < 0.5:
        if language == "de":
            for letter, spelled in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
                text = text.replace(letter, spelled)
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return text.removesuffix(".").replace(" ?", "?").replace(" !", "!")


def with_a_typo(text: str, rng: random.Random) -> str:
    """One longer word loses a letter or has two neighbours swapped; names of products are not spared."""
    words = text.split(" ")
    at = rng.choice([i for i, word in enumerate(words) if word.isalpha() and len(word) > 4] or [0])
    word = words[at]
    if len(word) > 4:
        cut = rng.randrange(2, len(word) - 1)
        words[at] = word[:cut] + (
            word[cut + 1 :] if rng.random() < 0.5 else word[cut + 1] + word[cut] + word[cut + 2 :]
        )
    return " ".join(words)


class Desk:
    """Writes rows of one kind, training or held-out: what it may say depends on which."""

    def __init__(self, heldout: bool, rng: random.Random):
        self.heldout, self.rng, self.decks = heldout, rng, {}

    def allowed(self, lines: list, held_back: int) -> list:
        return lines[-held_back:] if self.heldout else lines[:-held_back]

    def deal(self, language: str, list_name: str) -> str:
        """The next wording off a shuffled list, so that all of them are met about equally often."""
        lines = BOOKS[language][list_name].splitlines()
        deck = self.decks.setdefault((language, list_name), [])
        if not deck:
            deck += [lines[-1], *self.rng.sample(lines[:-1], 2)] if self.heldout else lines[:-1]
            self.rng.shuffle(deck)
        return deck.pop()

    def one_of(self, language: str, list_name: str) -> str:
        return self.rng.choice(BOOKS[language][list_name].split("|"))

    def slots(self, language: str, intent: str) -> dict[str, str]:
        rng, column = self.rng, LANGUAGES.index(language)
        things = self.allowed(THINGS, THINGS_HELD_BACK)
        clothes = self.allowed(CLOTHES, CLOTHES_HELD_BACK)
        products = {"exchange": clothes, "damaged": things}.get(intent, things + clothes)
        town = rng.choice(self.allowed(BOOKS[language]["town"].split("|"), PLACES_HELD_BACK))
        place = {"n": rng.randrange(2, 90), "zip": rng.randrange(10000, 99999), "town": town}
        return noun_slots(language, rng.choice(products)[column]) | {
            "name": rng.choice(self.allowed(NAMES, NAMES_HELD_BACK)),
            "nick": rng.choice(NICKS.split("|")),
            "size": str(rng.randrange(36, 48, 2)),
            "colour": self.one_of(language, "colour"),
            "address": self.one_of(language, "address").format_map(place),
            "day": str(rng.randrange(2, 29)),
            "month": self.one_of(language, "month"),
            "year": str(rng.randrange(2012, 2025)),
            "phone": f"555-01{rng.randrange(100):02}",
            "pounds": f"£{rng.randrange(9, 120)}.{rng.choice(['00', '50', '90'])}",
            "euros": f"{rng.randrange(9, 120)},{rng.choice(['00', '50', '90'])} €",
        }

    def message(self, language: str, intent: str, urgency: str, order: str | None) -> str:
        rng, slots = self.rng, self.slots(language, intent)
        if order:
            letter, digits = order.split("-")
            written = rng.choice([order, order, order, letter + digits, f"{letter} {digits}"])
            slots["id"] = written.lower() if rng.random() < 0.15 else written
        request = self.deal(language, intent)
        inline = order and ("{num}" in request or ("{ref}" in request and rng.random() < 0.5))
        slots["ref"] = self.one_of(language, "ref").format_map(slots) if inline else ""
        slots["num"] = self.one_of(language, "num").format_map(slots) if inline else ""
        parts = [request]
        if order and not inline:
            parts.insert(rng.choice([0, 1, 1]), self.one_of(language, "order"))
        if not order and intent != "account" and rng.random() < 0.15:
            parts.append(self.one_of(language, "no_order"))
        if rng.random() < (0.1 if order else 0.3):
            about_a_product = "{ref}" in request
            parts.append(self.one_of(language, "bought" if about_a_product and rng.random() < 0.6 else "aside"))
        if urgency != "normal":
            parts.insert(rng.choice([0, len(parts), len(parts), len(parts)]), self.deal(language, urgency))
        sentences = [part.format_map(slots) for part in parts]
        text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        return self.dressed(text, language, slots)

    def dressed(self, text: str, language: str, slots: dict[str, str]) -> str:
        rng = self.rng
        if rng.random() < 0.25:
            hello = self.one_of(language, "hello")
            if hello.endswith(",") and text[:2] not in ("I ", "I'"):
                text = text[0].lower() + text[1:]
            text = f"{hello} {text}"
        if rng.random() < 0.3:
            text += rng.choice([" ", "\n"]) + self.one_of(language, "bye").format_map(slots)
        manner = rng.random()
        if manner < 0.15:
            return as_typed_in_a_hurry(text, language, rng)
        return with_a_typo(text, rng) if manner < 0.30 else text


def rows(count: int, desk: Desk, messages_seen: set[str], orders_seen: set[str]) -> list[dict[str, str]]:
    """`count` rows, languages and intents in equal parts."""
    rng, made = desk.rng, []
    for i in range(count):
        language, intent = LANGUAGES[i % 4], INTENTS[i // 4 % 8]
        while True:
            order = f"{rng.choice('ABCDEFGHKLMNPRSTVWXZ')}-{rng.randrange(1000, 10000)}"
            if order in orders_seen or rng.random() < (0.6 if intent == "account" else 0.2):
                order = None
            urgency = rng.choices(["low", "normal", "high"], [22, 54, 24])[0]
            message = desk.message(language, intent, urgency, order)
            letters = "".join(c for c in message.casefold() if c.isalnum())
            if letters not in messages_seen:
                break
        messages_seen.add(letters)
        orders_seen.add(order or "")
        answer = {"intent": intent, "order": order, "urgency": urgency, "language": language}
        made.append({"prompt": message, "completion": json.dumps(answer, separators=(",", ":"))})
    rng.shuffle(made)
    return made


def main() -> None:
    rng = random.Random(SEED)
    messages_seen, orders_seen = set(), set()
    for name, count, heldout in (
        ("support_tickets", TRAIN_ROWS, False),
        ("support_tickets.heldout", HELDOUT_ROWS, True),
    ):
        path = Path(__file__).with_name(f"{name}.jsonl")
        made = rows(count, Desk(heldout, rng), messages_seen, orders_seen)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
        print(f"{path}: {count} rows")


if __name__ == "__main__":
    main()
